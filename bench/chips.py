"""Memory bandwidths of Macs, in GB/s, as their maker states them: peaks, which no program reaches.

Source: Apple's announcements of each chip, as public lists repeat them (llmcheck.net for M1 to M4,
techpowerup.com for the M3 Ultra, morningoverview.com and pkpressclub.com for M5; 2026-11-22). Where
a chip is sold in two widths this is the wider. Apple stated none for the M1: 68 is its 128-bit
LPDDR4X-4266.
"""

BANDWIDTHS = {
    "M1": 68,
    "M1 Pro": 200,
    "M1 Max": 400,
    "M1 Ultra": 800,
    "M2": 100,
    "M2 Pro": 200,
    "M2 Max": 400,
    "M2 Ultra": 800,
    "M3": 100,
    "M3 Pro": 150,
    "M3 Max": 400,
    "M3 Ultra": 819,
    "M4": 120,
    "M4 Pro": 273,
    "M4 Max": 546,
    "M5": 153,
    "M5 Pro": 307,
    "M5 Max": 614,
}
