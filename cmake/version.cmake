# generated/octet/base/build_facts.h: what `octet --version` prints.
find_package(Git QUIET)
set(OCTET_COMMIT "unknown")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                  OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(OCTET_COMMIT ${described})
  endif()
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/build_facts.h.in ${PROJECT_BINARY_DIR}/generated/octet/base/build_facts.h)
