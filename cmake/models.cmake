# octet/models/<stem>.cc is the registry: each file whose name is an architecture file defines
# `extern const ModelArch k_<stem>;` and this generates the table of them, in name order.
file(GLOB model_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/octet/models/*.cc)
list(FILTER model_files EXCLUDE REGEX "(_test|/model)\\.cc$")
list(SORT model_files)
set(declarations "")
set(rows "")
foreach(file IN LISTS model_files)
  get_filename_component(stem ${file} NAME_WE)
  string(APPEND declarations "extern const ModelArch k_${stem};\n")
  string(APPEND rows "    &k_${stem},\n")
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/model_table.cc.in ${PROJECT_BINARY_DIR}/generated/octet/models/model_table.cc)
set(OCTET_EXTRA_SOURCES_models ${PROJECT_BINARY_DIR}/generated/octet/models/model_table.cc)
