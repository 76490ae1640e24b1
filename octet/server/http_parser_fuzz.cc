// Any bytes as HTTP requests, all at once and in two pieces: no crash, no endless loop, the same result.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "octet/server/http_parser.h"

namespace {

// Every request of the bytes in one text.
std::string read_all(const std::string& bytes, size_t first) {
  octet::HttpLimits limits;
  limits.max_body_bytes = 1 << 12;
  limits.max_header_bytes = 1 << 12;
  limits.max_headers = 16;
  std::string seen, waiting;
  auto parser = std::make_unique<octet::HttpParser>(limits);
  for (const std::string& piece : {bytes.substr(0, first), bytes.substr(first)}) {
    waiting += piece;
    while (!waiting.empty()) {
      const auto before = parser->state();
      const size_t used = parser->feed(waiting);
      waiting.erase(0, used);
      if (parser->state() == octet::HttpParser::State::kFailed) return seen + std::to_string(parser->error().status);
      if (parser->state() == octet::HttpParser::State::kDone) {
        const octet::HttpRequest request = parser->take_request();
        seen += request.method + request.path + request.body + ";";
        parser = std::make_unique<octet::HttpParser>(limits);
      } else if (used == 0 && parser->state() == before) {
        break;
      }
    }
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // With the end of a head behind it: what is wrong may be noticed as soon as it comes, or when the head is complete.
  const std::string bytes = std::string(reinterpret_cast<const char*>(data), size) + "\r\n\r\n";
  const std::string whole = read_all(bytes, bytes.size());
  const std::string cut = size > 0 ? read_all(bytes, data[0] % size) : whole;
  if (cut != whole) {
    std::fprintf(stderr, "%s\n--- whole: %s\n--- cut at %zu: %s\n", bytes.c_str(), whole.c_str(), data[0] % size,
                 cut.c_str());
    std::abort();
  }
  return 0;
}
