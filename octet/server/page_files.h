// The files of the page at "/", in the program: made by cmake/page.cmake from octet/server/page/.
#pragma once

#include <span>
#include <string_view>

namespace octet {

struct PageFile {
  std::string_view path;        // "/", "/page/style.css"
  std::string_view media_type;  // "text/html; charset=utf-8"
  std::string_view text;
};

std::span<const PageFile> page_files();

}  // namespace octet
