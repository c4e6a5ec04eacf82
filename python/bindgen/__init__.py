"""Build-time generator: C headers in, a cffi module and its type stub out.

- preprocess: the compiler's own view of the headers, macros included
- parse: pycparser's syntax tree turned into the records of `model`
- comments: the header's comments, found again for each declaration
- ctype, annotate: C types with their typedefs followed, and as Python annotations
- exports: the symbols that the built libraries really offer
- bindings: what of the header can be bound, and what is left out and why
- cdef: the declarations for cffi
- stub: the same declarations as a typed `.pyi`
- spelling: C types in cffi's words, for check
- generate: all of the above, as CMake runs it
- check: the built module held against headers and libraries
"""
