// A client of an Engine for tests: submits requests, waits for all of them, and keeps what was answered.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/engine/tiny_model_for_test.h"

namespace octet {

struct Answer {
  std::map<int32_t, std::vector<int32_t>> tokens;  // by index
  std::vector<PositionLogprobs> logprobs;          // of index 0
  std::vector<PositionLogprobs> prompt_logprobs;
  FinishReason reason = FinishReason::kNone;
  std::optional<int32_t> stop_token_id;
  std::string error;
  int32_t num_cached_tokens = 0;
  double cumulative_logprob = 0.0;
  RequestTimes times;
  int num_finished_events = 0;
};

// Submits requests and waits for all of them.
class Client {
 public:
  void submit(Engine& engine, Request request) {
    const std::string id = request.id;
    request.on_event = [this, id](RequestEvent event) { take(id, std::move(event)); };
    ++num_open_;
    ASSERT_EQ(engine.submit(std::move(request)), SubmitResult::kAccepted);
  }
  std::map<std::string, Answer>& wait() {
    std::unique_lock lock(mutex_);
    const bool in_time = changed_.wait_for(lock, std::chrono::seconds(120), [&] { return num_open_ == 0; });
    EXPECT_TRUE(in_time);
    return answers_;
  }
  void wait_for_tokens(const std::string& id, size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(120), [&] { return answers_[id].tokens[0].size() >= count; }));
  }

 private:
  void take(const std::string& id, RequestEvent event) {
    const std::lock_guard lock(mutex_);
    Answer& answer = answers_[id];
    for (SequenceDelta& delta : event.deltas) {
      auto& tokens = answer.tokens[delta.index];
      tokens.insert(tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
      if (delta.index == 0) {
        for (auto& position : delta.logprobs) answer.logprobs.push_back(std::move(position));
        answer.cumulative_logprob = delta.cumulative_logprob;
      }
      if (delta.finish_reason == FinishReason::kNone) continue;
      answer.reason = delta.finish_reason;
      answer.stop_token_id = delta.stop_token_id;
      answer.error = delta.error;
    }
    for (auto& position : event.prompt_logprobs) answer.prompt_logprobs.push_back(std::move(position));
    answer.num_cached_tokens = std::max(answer.num_cached_tokens, event.num_cached_tokens);
    answer.times = event.times;
    if (event.finished) {
      ++answer.num_finished_events;
      --num_open_;
    }
    changed_.notify_all();  // under the lock: whom the last event wakes may destroy this
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Answer> answers_;
  int num_open_ = 0;
};

inline Request make_request(std::string id, std::vector<int32_t> prompt, SamplingParams sampling) {
  Request request;
  request.id = std::move(id);
  request.prompt_token_ids = std::move(prompt);
  request.sampling = std::move(sampling);
  return request;
}

inline std::vector<int32_t> prompt_of(int32_t length, int32_t first) {
  std::vector<int32_t> ids(static_cast<size_t>(length));
  for (int32_t i = 0; i < length; ++i) ids[static_cast<size_t>(i)] = (first + i * 7) % TinyModel::kVocabSize;
  return ids;
}

// A mix of greedy, seeded, penalised and n > 1 requests with prompts that share beginnings.
inline std::vector<Request> mixed_requests() {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 10; ++i) {
    SamplingParams sampling{.temperature = i % 2 == 0 ? 0.0 : 0.9, .max_tokens = 8 + i};
    if (i % 2 == 1) sampling.seed = 100 + i;
    if (i == 3) sampling.n = 3;
    if (i == 5) sampling.top_p = 0.8;
    if (i == 6) sampling.repetition_penalty = 1.3;
    requests.push_back(make_request(std::to_string(i), prompt_of(5 + 9 * (i % 4), i % 3), sampling));
  }
  return requests;
}

using Tokens = std::map<std::string, std::map<int32_t, std::vector<int32_t>>>;

inline Tokens run_together(const EngineOptions& options) {
  Engine engine(options);
  Client client;
  for (Request& request : mixed_requests()) client.submit(engine, std::move(request));
  Tokens tokens;
  for (auto& [id, answer] : client.wait()) {
    EXPECT_EQ(answer.reason, FinishReason::kLength) << answer.error;
    EXPECT_EQ(answer.num_finished_events, 1);
    tokens[id] = answer.tokens;
  }
  return tokens;
}

}  // namespace octet
