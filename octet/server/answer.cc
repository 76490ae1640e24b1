#include "octet/server/answer.h"

#include <algorithm>

namespace octet {

int64_t num_begun(const ChoiceNews& news) {
  return std::count_if(news.calls.begin(), news.calls.end(), [](const ToolCall& call) { return !call.continues; });
}

}  // namespace octet
