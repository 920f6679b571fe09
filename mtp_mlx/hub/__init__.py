"""Models by name: short names, the Hugging Face cache, and what is fetched from the hub.

Only `client` and `fetch` reach the network; loading a model never does.
"""
