"""`rawllama bench`: what rawllama's speed is, beside llama.cpp's own C programs and other libraries.

Each module measures one thing and gives a `record.Record`; tables, pictures and comparisons are made of records alone.
docs/benchmarks says how it is measured. Needs the extra `rawllama[bench]`.
"""
