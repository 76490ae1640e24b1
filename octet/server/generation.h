// Generation: one request being answered: its prompts go to the engine, what comes back goes to the client, as chunks
// of a stream or as one answer. Lives as long as the engine works on it or the client has not taken all of it.
//
// News arrive on Llm's output thread; the client's news (gone, room again) on the I/O thread. A client that reads
// slowly gets longer chunks: what it has not taken is kept as news, not as bytes.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octet/server/admission.h"
#include "octet/server/answer.h"
#include "octet/server/generation_request.h"
#include "octet/server/http_reply.h"
#include "octet/server/served_model.h"
#include "octet/server/server_metrics.h"
#include "octet/server/trace_exporter.h"

namespace octet {

// A request as somebody who watches the server sees it.
struct RequestStatus {
  std::string id;
  double age_seconds = 0.0;
  bool has_begun = false;  // its first token is there
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
};

struct GenerationJob {
  GenerationRequest request;
  std::vector<Prompt> prompts;
  std::string echo;                        // of a chat
  std::optional<OutputSplitter> splitter;  // of a chat's choices, each of which gets a copy
  bool include_reasoning = true;
  bool calls_named_tool = false;
  std::optional<PoolingType> pooling;  // its answer is vectors
  std::unique_ptr<AnswerFormat> format;
  std::string request_id;
  std::optional<TraceParent> trace;  // that its span belongs to; nothing: none is made
  TraceExporter* tracer = nullptr;   // with `trace`; outlives it
  std::chrono::steady_clock::time_point arrival;
  Admission::Ticket ticket;
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // `model` and `metrics` outlive it.
  Generation(const ServedModel& model, ServerMetrics& metrics, std::shared_ptr<HttpReply> reply, GenerationJob job);

  // Hands every prompt to the engine. Throws what Llm::submit throws; then nothing has been answered.
  void start();
  // Ends it in the engine; what there is goes to the client with finish_reason "abort".
  void abort();
  // Ends what came before `arrived` and waits for its first step: 503 to the client.
  void end_waiting(std::chrono::steady_clock::time_point arrived);
  // Nothing once it has been answered.
  std::optional<RequestStatus> status(std::chrono::steady_clock::time_point now);
  // `id` is the request's, or its answer's ("chatcmpl-...").
  bool is_called(std::string_view id) const;
  // A comment to a stream that has been silent, so that proxies keep it open.
  void keep_alive(std::chrono::steady_clock::time_point now);

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    ChoiceNews news;
    std::optional<OutputSplitter> splitter;
    bool ended = false;
  };

  void on_output(size_t prompt, const RequestOutput& output, std::span<const OutputDelta> deltas);
  void take(size_t prompt, const RequestOutput& output, std::span<const OutputDelta> deltas);
  void open_choices(size_t prompt, const RequestOutput& output);
  void take_delta(size_t prompt, const RequestOutput& output, const OutputDelta& delta);
  void take_text(Choice& choice, const OutputDelta& delta, bool ends);
  void trace(const RequestOutput& last);
  void measure(size_t prompt, const RequestOutput& output, bool has_tokens);
  void leave();
  void flush();
  void flush_choice(Choice& choice, std::string& text);
  bool is_due(const Choice& choice) const;
  void send_text(std::string text);
  void send_whole();
  void fail_with(ApiError error);
  ApiError failure(const std::string& message) const;
  AnswerUsage usage() const;
  Choice& choice(size_t prompt, int32_t index);
  void abort_in_engine();

  const ServedModel& model_;
  ServerMetrics& metrics_;
  const std::shared_ptr<HttpReply> reply_;
  GenerationJob job_;

  std::mutex mutex_;  // guards all below
  std::vector<std::string> engine_ids_;
  std::vector<Choice> choices_;
  std::vector<int64_t> last_token_us_;  // by prompt; 0: none yet
  std::vector<int64_t> num_cached_;     // tokens, by prompt
  size_t num_open_ = 0;                 // prompts that the engine works on
  int64_t num_prompt_tokens_ = 0, num_cached_tokens_ = 0, num_output_tokens_ = 0, num_reasoning_tokens_ = 0;
  RequestTimes times_;  // of the prompt that ended last
  bool gone_ = false, started_ = false, finished_ = false, aborted_ = false, waited_too_long_ = false;
  Clock::time_point last_sent_;
};

}  // namespace octet
