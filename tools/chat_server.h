// ChatServer: a client of an OpenAI-compatible /v1/chat/completions, streaming (libcurl).
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "octet/base/json.h"
#include "octet/sampling/params.h"

namespace octet {

struct ChatServerOptions {
  std::string url;      // ".../v1"
  std::string api_key;  // may be empty
  std::string model;    // empty: the first of /v1/models
};

class ChatServer {
 public:
  explicit ChatServer(ChatServerOptions options);
  // Streams the answer to on_text and returns all of it; stops early when `stop` says so. Throws Error{kIo} with the
  // server's own message.
  std::string answer(const Json& messages, const SamplingParams& params,
                     const std::function<void(std::string_view)>& on_text, const std::function<bool()>& stop);

 private:
  std::string first_model();
  ChatServerOptions options_;
};

}  // namespace octet
