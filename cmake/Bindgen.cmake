# python/bindgen as a build step: it runs when a header, a library or bindgen itself has changed.

find_program(CMAKE_NM nm)

function(rawllama_bindgen)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "OUTPUT;MODULE" "HEADERS;COMPILED_IN;INCLUDE;LIBRARIES;PLUGINS")
    set(options --module ${arg_MODULE} ${rawllama_strict})
    foreach(kind HEADERS:header COMPILED_IN:compiled-in INCLUDE:include)
        string(REPLACE ":" ";" kind "${kind}")
        list(GET kind 0 list)
        list(GET kind 1 flag)
        foreach(value IN LISTS arg_${list})
            list(APPEND options --${flag} "${value}")
        endforeach()
    endforeach()
    foreach(target IN LISTS arg_LIBRARIES)
        list(APPEND options --library "$<TARGET_FILE:${target}>")
    endforeach()
    foreach(target IN LISTS arg_PLUGINS)
        list(APPEND options --plugin "$<TARGET_FILE:${target}>")
    endforeach()
    if(TARGET ggml-hip)
        list(APPEND options --define GGML_USE_HIP)
    endif()

    file(GLOB bindgen CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/python/bindgen/*.py*")
    add_custom_command(
        OUTPUT "${arg_OUTPUT}/_libllama.c" "${arg_OUTPUT}/_libllama.pyi" "${arg_OUTPUT}/_libllama.json"
        COMMAND "${Python_EXECUTABLE}" -m bindgen --compiler "${CMAKE_C_COMPILER}" --nm "${CMAKE_NM}" generate ${options}
            --source "${arg_OUTPUT}/_libllama.c" --stub "${arg_OUTPUT}/_libllama.pyi" --record "${arg_OUTPUT}/_libllama.json"
        DEPENDS ${bindgen} ${rawllama_header_files} "${CMAKE_CURRENT_SOURCE_DIR}/csrc/rawllama.h"
            ${arg_LIBRARIES} ${arg_PLUGINS}
        WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/python" # where -m finds bindgen
        COMMENT "bindgen: headers and libraries to the module's source and stub"
        VERBATIM)
endfunction()
