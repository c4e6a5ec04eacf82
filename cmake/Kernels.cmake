# csrc/cpu: kernels for one instruction set each, picked at run time. They need ggml's own headers, and the vectors of
# GCC and Clang.

function(rawllama_add_kernels target)
    set(folder "${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu")
    string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" processor)
    if(processor MATCHES "^(x86_64|amd64)$")
        set(sets avx2 avx512)
    elseif(processor MATCHES "^(aarch64|arm64)$")
        set(sets neon)
    endif()
    set(inside "${llama_source}/ggml/src")
    if(NOT DEFINED sets OR WIN32 OR NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" OR NOT EXISTS "${inside}/ggml-cpu/traits.h")
        target_sources(${target} PRIVATE "${folder}/absent.cpp")
        return()
    endif()
    set(options_avx2 -mavx2 -mfma -mf16c)
    set(options_avx512 ${options_avx2} -mavx512f)
    foreach(set IN LISTS sets)
        set_source_files_properties("${folder}/kernels_${set}.cpp" PROPERTIES
            COMPILE_OPTIONS "-O3;-Wall;-Wextra;${options_${set}}")
        target_sources(${target} PRIVATE "${folder}/kernels_${set}.cpp")
    endforeach()
    target_sources(${target} PRIVATE "${folder}/kernels.cpp" "${folder}/packed.cpp" "${folder}/operations.cpp"
        "${folder}/zeros.cpp")
    set_source_files_properties("${folder}/packed.cpp" "${folder}/operations.cpp" "${folder}/zeros.cpp" PROPERTIES
        INCLUDE_DIRECTORIES "${inside};${inside}/ggml-cpu")
    target_link_libraries(${target} PRIVATE ${CMAKE_DL_LIBS})
endfunction()
