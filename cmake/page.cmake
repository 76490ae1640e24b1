# generated/octet/server/page_files.cc: the page at "/" as string literals, so that the program needs no files beside it.
foreach(file index.html style.css main.js chat.js text.js monitor.js server.js)
  set(path ${PROJECT_SOURCE_DIR}/octet/server/page/${file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  string(MAKE_C_IDENTIFIER ${file} name)
  file(READ ${path} OCTET_PAGE_${name})
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/page_files.cc.in ${PROJECT_BINARY_DIR}/generated/octet/server/page_files.cc @ONLY)
set(OCTET_EXTRA_SOURCES_server ${PROJECT_BINARY_DIR}/generated/octet/server/page_files.cc)
