# libllama built from source: the pinned tree or somebody's checkout.

foreach(backend IN LISTS RAWLLAMA_BACKENDS)
    string(TOLOWER "${backend}" backend)
    rawllama_require_backend("${backend}")
    string(TOUPPER "GGML_${backend}" switch)
    set(${switch} ON) # not in the cache, where it would outlive a change of the list
endforeach()

# As a subproject llama.cpp builds its library alone. The module links it as shared libraries.
if(DEFINED BUILD_SHARED_LIBS AND NOT BUILD_SHARED_LIBS)
    message(FATAL_ERROR "rawllama links shared libraries: leave BUILD_SHARED_LIBS=${BUILD_SHARED_LIBS} out")
endif()
set(BUILD_SHARED_LIBS ON)

# llama.cpp asks git for its commit, and git would answer with this repository's.
set(GIT_EXE "" CACHE INTERNAL "no git: the commit is the pin's")
if(RAWLLAMA_LLAMA STREQUAL "vendored")
    file(READ "${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp.toml" pin)
    string(REGEX MATCH "commit = \"([0-9a-f]+)\"" _ "${pin}")
    string(SUBSTRING "${CMAKE_MATCH_1}" 0 9 LLAMA_BUILD_COMMIT)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS vendor/llama.cpp.toml)
else()
    execute_process(COMMAND git rev-parse --short=9 HEAD WORKING_DIRECTORY "${llama_source}"
        OUTPUT_VARIABLE LLAMA_BUILD_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT LLAMA_BUILD_COMMIT OR NOT EXISTS "${llama_source}/.git")
        set(LLAMA_BUILD_COMMIT unknown)
    endif()
endif()
if(NOT DEFINED LLAMA_BUILD_NUMBER)
    set(LLAMA_BUILD_NUMBER 0)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT APPLE AND NOT WIN32)
    # Unique symbols are shared with every other library of the process, another libllama's included.
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-gnu-unique>)
endif()
add_subdirectory("${llama_source}" "${CMAKE_CURRENT_BINARY_DIR}/llama.cpp" EXCLUDE_FROM_ALL)

set(rawllama_libraries llama ggml ggml-base)
set(rawllama_plugins "")
foreach(backend IN LISTS GGML_AVAILABLE_BACKENDS)
    if(NOT TARGET ${backend})
        continue() # a leftover of an earlier configuration in CMake's cache
    endif()
    if(GGML_BACKEND_DL)
        list(APPEND rawllama_plugins ${backend})
    else()
        list(APPEND rawllama_libraries ${backend})
    endif()
endforeach()

# ---- names: no other package's libllama.so.0 can be taken for ours, nor ours for theirs

function(rawllama_set_origin target folder)
    if(APPLE)
        set(origin "@loader_path")
    else()
        set(origin "$ORIGIN")
    endif()
    set_target_properties(${target} PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "${origin}/${folder}")
endfunction()

foreach(target IN LISTS rawllama_libraries rawllama_plugins)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "SHARED_LIBRARY")
        set_target_properties(${target} PROPERTIES OUTPUT_NAME rawllama-${target})
    endif() # a plugin keeps its name: ggml looks for libggml-*.so, and loads it by its path
    set_property(TARGET ${target} PROPERTY PUBLIC_HEADER) # headers are installed below
    # One real file, as wheels have no symbolic links.
    set_property(TARGET ${target} PROPERTY VERSION)
    set_property(TARGET ${target} PROPERTY SOVERSION)
    rawllama_set_origin(${target} .)
    if(UNIX AND NOT APPLE)
        # A library binds to its own functions first, whatever else the process has loaded.
        target_link_options(${target} PRIVATE LINKER:-Bsymbolic)
    endif()
endforeach()

if(TARGET ggml-cuda AND UNIX AND NOT APPLE)
    # CUDA's libraries as the packages nvidia-* bring them: site-packages/nvidia beside site-packages/rawllama.
    set_property(TARGET ggml-cuda APPEND PROPERTY INSTALL_RPATH "$ORIGIN/../../nvidia/cu13/lib"
        "$ORIGIN/../../nvidia/cublas/lib" "$ORIGIN/../../nvidia/cuda_runtime/lib")
endif()
if(TARGET ggml-blas AND UNIX)
    # The package mkl puts its libraries into the environment's lib: site-packages/../..
    set_property(TARGET ggml-blas APPEND PROPERTY INSTALL_RPATH "$ORIGIN/../../../..")
endif()

# ---- headers: the C ones, with those of the backends that are switched on

set(rawllama_include "${llama_source}/include" "${llama_source}/ggml/include")
set(rawllama_headers ggml.h ggml-alloc.h ggml-backend.h ggml-cpu.h ggml-opt.h gguf.h llama.h)
foreach(backend IN LISTS GGML_AVAILABLE_BACKENDS)
    string(REGEX REPLACE "^ggml-(hip|musa)$" "ggml-cuda" header "${backend}")
    # ggml-openvino.h is C++, so its functions are for C++ only.
    if(EXISTS "${llama_source}/ggml/include/${header}.h" AND NOT header STREQUAL "ggml-openvino")
        list(APPEND rawllama_headers "${header}.h")
    endif()
endforeach()
list(REMOVE_DUPLICATES rawllama_headers)
file(GLOB rawllama_header_files "${llama_source}/include/*.h" "${llama_source}/ggml/include/*.h")
