"""`rawllama wheel`: a wheel for one GPU, one processor, or every processor of a kind.

variant     what is wanted, as CMake's options, a local version and requirements
source      where rawllama's source tree is
toolkit     CUDA's compiler and libraries, installed or from PyPI
mkl         Intel's BLAS
build       pip builds it, in a folder kept for this set of options
finish      its local version, its requirements, its platform tag
trial       it is installed in a new environment and computes
"""
