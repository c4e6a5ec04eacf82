# python/bindgen as a build step: it runs when a header, a library or bindgen itself has changed.

find_program(CMAKE_NM nm)

# Append `flag value` to a list for each value.
function(rawllama_append_options list flag)
    foreach(value IN LISTS ARGN)
        list(APPEND ${list} ${flag} "${value}")
    endforeach()
    set(${list} "${${list}}" PARENT_SCOPE)
endfunction()

# GUARDED names the header whose functions get guarded twins: rawllama_guarded.h and .cpp beside the module's source.
function(rawllama_bindgen)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "OUTPUT;MODULE;GUARDED" "HEADERS;COMPILED_IN;INCLUDE;LIBRARIES;PLUGINS")
    list(TRANSFORM arg_LIBRARIES REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE libraries)
    list(TRANSFORM arg_PLUGINS REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE plugins)
    set(read "") # what both commands read
    rawllama_append_options(read --include ${arg_INCLUDE})
    rawllama_append_options(read --library ${libraries})
    if(TARGET ggml-hip)
        list(APPEND read --define GGML_USE_HIP)
    endif()
    set(options "")
    rawllama_append_options(options --header ${arg_HEADERS})
    rawllama_append_options(options --compiled-in ${arg_COMPILED_IN})
    rawllama_append_options(options --plugin ${plugins})

    file(GLOB bindgen CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/python/bindgen/*.py*")
    set(command "${Python_EXECUTABLE}" -m bindgen --compiler "${CMAKE_C_COMPILER}" --nm "${CMAKE_NM}")
    set(folder "${CMAKE_CURRENT_SOURCE_DIR}/python") # where -m finds bindgen
    set(inputs ${bindgen} ${rawllama_header_files} ${arg_LIBRARIES} ${arg_PLUGINS})
    set(twins "${arg_OUTPUT}/rawllama_guarded.h" "${arg_OUTPUT}/rawllama_guarded.cpp")
    add_custom_command(
        OUTPUT ${twins}
        COMMAND ${command} guard ${read} --header ${arg_GUARDED} --to "${arg_OUTPUT}"
        DEPENDS ${inputs} WORKING_DIRECTORY "${folder}" VERBATIM
        COMMENT "bindgen: guarded twins of the functions of ${arg_GUARDED}")
    set(module "${arg_OUTPUT}/_libllama")
    add_custom_command(
        OUTPUT "${module}.c" "${module}.pyi" "${module}.json"
        COMMAND ${command} generate --module ${arg_MODULE} ${rawllama_strict} ${read} --include "${arg_OUTPUT}" ${options}
            --source "${module}.c" --stub "${module}.pyi" --record "${module}.json"
        DEPENDS ${inputs} ${twins} "${CMAKE_CURRENT_SOURCE_DIR}/csrc/rawllama.h" WORKING_DIRECTORY "${folder}" VERBATIM
        COMMENT "bindgen: headers and libraries to the module's source and stub")
endfunction()

# Whether one of the headers names `symbol`: another llama.cpp may be older than it.
function(rawllama_header_has symbol result)
    set(${result} OFF PARENT_SCOPE)
    foreach(header IN LISTS rawllama_header_files)
        file(STRINGS "${header}" lines REGEX "${symbol}" LIMIT_COUNT 1)
        if(lines)
            set(${result} ON PARENT_SCOPE)
        endif()
    endforeach()
endfunction()
