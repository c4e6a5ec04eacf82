# What must be on the machine: each missing thing stops the configuration with its remedy.

include(CheckLanguage)

# C, C++ and Python's headers.
macro(rawllama_enable_languages)
    foreach(language C CXX)
        check_language(${language})
        if(NOT CMAKE_${language}_COMPILER)
            message(FATAL_ERROR "no ${language} compiler was found. Install one "
                "(Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install; "
                "Windows: Visual Studio's C++ build tools), or name it in the environment variables CC and CXX")
        endif()
        enable_language(${language})
    endforeach()
    # A module of the limited API serves every later Python, but not a free-threaded one, which has no such API.
    execute_process(COMMAND "${Python_EXECUTABLE}" -c "import sysconfig; print(sysconfig.get_config_var('Py_GIL_DISABLED'))"
        OUTPUT_VARIABLE free_threaded OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(free_threaded STREQUAL "1")
        set(rawllama_headers_of_python Development.Module)
        set(rawllama_limited_api "")
    else()
        set(rawllama_headers_of_python Development.SABIModule)
        set(rawllama_limited_api USE_SABI 3.11)
    endif()
    find_package(Python 3.11 COMPONENTS Interpreter ${rawllama_headers_of_python})
    if(NOT Python_${rawllama_headers_of_python}_FOUND)
        message(FATAL_ERROR "Python.h for ${Python_EXECUTABLE} was not found. Install Python's headers "
            "(Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)")
    endif()
endmacro()

function(rawllama_missing backend what remedy)
    message(FATAL_ERROR "RAWLLAMA_BACKENDS names ${backend}, and ${what} was not found. Remedy: ${remedy}")
endfunction()

# What one backend needs, asked before ggml's own build asks in its own words.
function(rawllama_require_backend backend)
    if(backend STREQUAL "cuda")
        rawllama_require_cuda()
    elseif(backend STREQUAL "vulkan")
        find_package(Vulkan QUIET COMPONENTS glslc)
        find_package(SPIRV-Headers QUIET CONFIG)
        if(NOT Vulkan_FOUND OR NOT Vulkan_glslc_FOUND OR NOT SPIRV-Headers_FOUND)
            rawllama_missing(vulkan "the Vulkan loader and headers, glslc or SPIRV-Headers"
                "install the Vulkan SDK (Debian, Ubuntu: apt-get install libvulkan-dev glslc spirv-headers)")
        endif()
    elseif(backend STREQUAL "hip")
        find_program(RAWLLAMA_HIPCONFIG hipconfig HINTS "$ENV{ROCM_PATH}/bin" /opt/rocm/bin)
        if(NOT RAWLLAMA_HIPCONFIG)
            rawllama_missing(hip "ROCm's HIP SDK" "install rocm-hip-sdk 6.1 or later, or set ROCM_PATH to where it is")
        endif()
    elseif(backend STREQUAL "sycl")
        include(CheckCXXCompilerFlag)
        check_cxx_compiler_flag(-fsycl RAWLLAMA_CXX_SYCL)
        if(NOT RAWLLAMA_CXX_SYCL)
            rawllama_missing(sycl "a C++ compiler that knows -fsycl"
                "install Intel's oneAPI, source its setvars.sh, and set CC=icx CXX=icpx")
        endif()
    elseif(backend STREQUAL "blas")
        rawllama_require_blas()
    elseif(backend STREQUAL "metal")
        if(NOT APPLE)
            message(FATAL_ERROR "RAWLLAMA_BACKENDS names metal, which only macOS has: build there, or leave it out")
        endif()
    elseif(NOT backend MATCHES "^(cpu|rpc)$")
        message(FATAL_ERROR "RAWLLAMA_BACKENDS names ${backend}, which is none of cpu, cuda, metal, vulkan, hip, sycl, "
            "blas, rpc. ggml's other backends are switched on by its own options, e.g. CMAKE_ARGS=-DGGML_OPENCL=ON")
    endif()
endfunction()

function(rawllama_require_cuda)
    find_package(CUDAToolkit QUIET)
    check_language(CUDA)
    if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND)
        rawllama_missing(cuda "the CUDA toolkit" "install it, then put nvcc on PATH or set CUDACXX to its full name")
    endif()
    if(NOT TARGET CUDA::cublas)
        rawllama_missing(cuda "cuBLAS, beside the CUDA compiler that is here,"
            "install it in the same version (Debian, Ubuntu with NVIDIA's repository: apt-get install libcublas-dev-13-0)")
    endif()
    if(DEFINED CMAKE_CUDA_ARCHITECTURES OR DEFINED ENV{CUDAARCHS} OR (DEFINED GGML_NATIVE AND NOT GGML_NATIVE))
        return()
    endif()
    # ggml would ask nvcc for "native", which without a GPU compiles for an architecture nobody chose.
    execute_process(COMMAND nvidia-smi -L OUTPUT_VARIABLE gpus ERROR_QUIET RESULT_VARIABLE failed)
    if(failed OR NOT gpus MATCHES "GPU 0")
        message(FATAL_ERROR "RAWLLAMA_BACKENDS names cuda, and there is no NVIDIA GPU here to build for. Name its "
            "architecture: -DCMAKE_CUDA_ARCHITECTURES=90 for H100, 89 for RTX 40, 86 for RTX 30, 80 for A100; "
            "or -DGGML_NATIVE=OFF for all that ggml knows, which takes hours")
    endif()
endfunction()

function(rawllama_require_blas)
    if(GGML_BLAS_VENDOR)
        set(BLA_VENDOR ${GGML_BLAS_VENDOR})
    endif()
    find_package(BLAS QUIET)
    if(NOT BLAS_FOUND)
        rawllama_missing(blas "a BLAS library" "install one and name it, e.g. Debian, Ubuntu: \
apt-get install libopenblas-openmp-dev pkg-config, with -DGGML_BLAS_VENDOR=OpenBLAS. A build with OpenMP threads: \
with pthreads, its threads and ggml's fight over the cores")
    endif()
endfunction()
