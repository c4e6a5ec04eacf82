# An installed libllama, e.g. a distribution's. It stays where it is; only the module is ours.

find_path(RAWLLAMA_SYSTEM_INCLUDE llama.h PATH_SUFFIXES llama.cpp)
foreach(name llama ggml ggml-base)
    find_library(RAWLLAMA_SYSTEM_${name} ${name} PATH_SUFFIXES llama.cpp)
    if(NOT RAWLLAMA_SYSTEM_${name} OR NOT RAWLLAMA_SYSTEM_INCLUDE)
        message(FATAL_ERROR "RAWLLAMA_LLAMA=system, and llama.h or lib${name} was not found. Install llama.cpp with its "
            "headers (cmake --install of a checkout, or a distribution's -dev package), and if it is not in a standard "
            "place, set CMAKE_PREFIX_PATH to the folder that holds its include/ and lib/")
    endif()
    add_library(${name} SHARED IMPORTED)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${RAWLLAMA_SYSTEM_${name}}")
endforeach()
set(rawllama_libraries llama ggml ggml-base)

# Backends that ggml was linked with have functions of their own.
get_filename_component(folder "${RAWLLAMA_SYSTEM_ggml}" DIRECTORY)
foreach(name ggml-cpu ggml-cuda ggml-hip ggml-metal ggml-vulkan ggml-sycl ggml-blas ggml-rpc)
    find_library(RAWLLAMA_SYSTEM_${name} ${name} HINTS "${folder}" NO_DEFAULT_PATH)
    if(RAWLLAMA_SYSTEM_${name})
        add_library(${name} SHARED IMPORTED)
        set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${RAWLLAMA_SYSTEM_${name}}")
        list(APPEND rawllama_libraries ${name})
    endif()
endforeach()
set(rawllama_plugins "")
set(LLAMA_BUILD_COMMIT "${RAWLLAMA_SYSTEM_llama}")

set(rawllama_include "${RAWLLAMA_SYSTEM_INCLUDE}")
set(rawllama_headers ggml.h ggml-alloc.h ggml-backend.h ggml-cpu.h ggml-opt.h gguf.h llama.h)
foreach(name IN LISTS rawllama_libraries)
    if(name MATCHES "^ggml-" AND EXISTS "${RAWLLAMA_SYSTEM_INCLUDE}/${name}.h")
        list(APPEND rawllama_headers "${name}.h")
    endif()
endforeach()
list(REMOVE_DUPLICATES rawllama_headers)
file(GLOB rawllama_header_files "${RAWLLAMA_SYSTEM_INCLUDE}/llama*.h" "${RAWLLAMA_SYSTEM_INCLUDE}/gg*.h")

# The libraries need each other, and an install outside the linker's folders may not say where they are: DT_RPATH, unlike
# DT_RUNPATH, is asked for those too.
set(transitive_rpath "")
if(UNIX AND NOT APPLE)
    set(transitive_rpath LINKER:--disable-new-dtags)
endif()

# Header against library: the same functions, and structs of the same size.
try_run(ran compiled "${CMAKE_CURRENT_BINARY_DIR}/check_system"
    SOURCES "${CMAKE_CURRENT_SOURCE_DIR}/cmake/check_system.cpp"
    CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${rawllama_include}"
    LINK_OPTIONS ${transitive_rpath}
    LINK_LIBRARIES ${rawllama_libraries}
    CXX_STANDARD 17 COMPILE_OUTPUT_VARIABLE compile_output RUN_OUTPUT_VARIABLE run_output)
if(compiled)
    set(compile_output "")
endif()
if(NOT compiled OR NOT ran EQUAL 0)
    message(FATAL_ERROR "${RAWLLAMA_SYSTEM_INCLUDE}/llama.h and ${RAWLLAMA_SYSTEM_llama} do not fit together:\n"
        "${run_output}${compile_output}\nInstall both from one version of llama.cpp, or build the pinned one with "
        "RAWLLAMA_LLAMA=vendored")
endif()
set(rawllama_strict --strict) # bindgen compares the names

function(rawllama_set_origin target folder)
    get_filename_component(folder "${RAWLLAMA_SYSTEM_llama}" DIRECTORY)
    set_target_properties(${target} PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "${folder}")
    target_link_options(${target} PRIVATE ${transitive_rpath})
endfunction()
