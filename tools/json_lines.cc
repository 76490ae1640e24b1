#include "tools/json_lines.h"

#include <cstdio>
#include <iostream>
#include <string>

#include "octet/base/error.h"

namespace octet {

void answer_json_lines(const std::function<Json(const JsonObject&)>& answer) {
  std::ios::sync_with_stdio(false);
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.empty()) continue;
    Json reply;
    try {
      const std::string where = fmt::format("line {}", number);
      const Json question = parse_json(line, where);
      reply = answer(JsonObject(question, where));
    } catch (const Error& error) {
      reply = {{"error", error.what()}};
    }
    std::cout << reply.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    if (std::cin.rdbuf()->in_avail() <= 0) std::cout.flush();
  }
  std::cout.flush();
}

}  // namespace octet
