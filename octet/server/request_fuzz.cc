// Any bytes as the body of every route that makes tokens or vectors: only ApiError may come out, with a status of 4xx.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "octet/server/chat_request.h"
#include "octet/server/completion_request.h"
#include "octet/server/embedding_request.h"
#include "octet/server/json_body.h"
#include "octet/server/messages_request.h"
#include "octet/server/responses_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace octet;
  ModelFacts facts;
  facts.names = {"m"};
  facts.vocab_size = 100;
  facts.max_model_len = 64;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto check = [&](const auto& read) {
    try {
      read(parse_body(bytes));
    } catch (const ApiError& error) {
      if (error.status < 400 || error.status > 499) std::abort();
      dump_line(error.body());
    }
  };
  check([&](const Json& body) { read_completion(body, facts); });
  check([&](const Json& body) { plain_messages(read_chat(body, facts).messages); });
  check([&](const Json& body) { plain_messages(read_messages_request(body, facts).messages); });
  check([&](const Json& body) { plain_messages(read_responses_request(body, facts).chat.messages); });
  check([&](const Json& body) { read_embedding(body, facts); });
  return 0;
}
