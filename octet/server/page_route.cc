#include "octet/server/page_route.h"

#include <fmt/format.h>

namespace octet {

HttpResponse page_response(const PageFile& file, const HttpRequest& request) {
  const std::string tag = fmt::format("\"{:016x}\"", std::hash<std::string_view>()(file.text));
  HttpHeaders headers = {{"ETag", tag}, {"Cache-Control", "no-cache"}};
  if (request.header("if-none-match") == tag) return {.status = 304, .headers = std::move(headers), .body = {}};
  headers.insert(headers.end(),
                 {{"Content-Type", std::string(file.media_type)},
                  {"Content-Security-Policy",
                   "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
                   "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"Referrer-Policy", "no-referrer"}});
  return {.status = 200, .headers = std::move(headers), .body = std::string(file.text)};
}

}  // namespace octet
