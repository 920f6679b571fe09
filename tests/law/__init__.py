"""The sampling law: statistics of the real round against exact enumeration, and their mutants."""
