"""`rawllama doctor`: what is here, what is installed, what is wrong, and what to do. None of it loads the library here.

tools       compilers and toolkits
machine     processor, GPUs, drivers
installed   this copy of rawllama: its build, whether each library loads, its devices
advice      the build that fits this machine best
"""
