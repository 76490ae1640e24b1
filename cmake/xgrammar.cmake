# xgrammar, which turns JSON schemas, regular expressions and grammars into masks over a vocabulary: its pinned source is
# brought when CMake configures and built as a part of octet. Where it cannot be brought, octet is built without
# (*_without_xgrammar.cc) and refuses structured output by name.
option(OCTET_XGRAMMAR "Bring and build xgrammar, for structured output" ON)
if(NOT OCTET_XGRAMMAR)
  return()
endif()

execute_process(COMMAND ${PROJECT_SOURCE_DIR}/scripts/fetch_xgrammar.sh OUTPUT_VARIABLE xgrammar_source
                OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE xgrammar_failed)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/scripts/pins/xgrammar.txt)
if(xgrammar_failed)
  message(WARNING "xgrammar could not be brought (scripts/fetch_xgrammar.sh says why): this build refuses structured output")
  set(OCTET_XGRAMMAR OFF)
  return()
endif()

# Not its own CMakeLists.txt, which sets flags of the whole build and wants its Python bindings.
file(GLOB_RECURSE xgrammar_sources CONFIGURE_DEPENDS ${xgrammar_source}/cpp/*.cc)
list(FILTER xgrammar_sources EXCLUDE REGEX "/cpp/tvm_ffi/[^/]*$")
add_library(octet_xgrammar STATIC ${xgrammar_sources} ${PROJECT_SOURCE_DIR}/cmake/xgrammar_log.cc)
target_compile_features(octet_xgrammar PUBLIC cxx_std_17)
target_include_directories(octet_xgrammar SYSTEM PUBLIC ${xgrammar_source}/include ${xgrammar_source}/3rdparty/picojson
                           ${xgrammar_source}/3rdparty/dlpack/include)
target_compile_definitions(octet_xgrammar PUBLIC XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0
                           PRIVATE XGRAMMAR_LOG_CUSTOMIZE=1)
target_compile_options(octet_xgrammar PRIVATE -w)
target_link_libraries(octet_xgrammar PUBLIC Threads::Threads)
if(OCTET_SANITIZE)
  target_compile_options(octet_xgrammar PRIVATE -fsanitize=${OCTET_SANITIZE} -fno-omit-frame-pointer)
endif()
set(OCTET_XGRAMMAR_LIBRARY octet_xgrammar)
