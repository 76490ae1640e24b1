// OutputStream: turns one request's token events into text: one detokenizer and one stop-string watcher per sequence.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "octet/api/output.h"
#include "octet/api/stop_strings.h"
#include "octet/text/detokenizer.h"

namespace octet {

struct OutputDelta;

class OutputStream {
 public:
  // `tokenizer` may be nullptr (token ids only) and outlives this.
  OutputStream(const Tokenizer* tokenizer, SamplingParams params, RequestOutput start);

  // Applies an event; what is new goes to `deltas`. Sequences that a stop string ended ignore their later tokens.
  void apply(const RequestEvent& event, std::vector<OutputDelta>& deltas);
  const RequestOutput& output() const { return output_; }
  void set_pooled(std::vector<float> pooled) { output_.pooled = std::move(pooled); }
  // The sequences that the last event's tokens ended by a stop string, which is known here only: the engine still works
  // on them.
  const std::vector<int32_t>& newly_stopped() const { return newly_stopped_; }

 private:
  struct Sequence {
    std::optional<Detokenizer> detokenizer;
    StopStrings stops;
  };

  void apply_delta(const SequenceDelta& delta, OutputDelta& out);
  // Adds one token's text; true when a stop string ended the sequence.
  bool push_token(int32_t token_id, size_t index, std::string& text);
  void finish_sequence(const SequenceDelta& delta, OutputDelta& out);

  SamplingParams params_;
  RequestOutput output_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> newly_stopped_;
};

}  // namespace octet
