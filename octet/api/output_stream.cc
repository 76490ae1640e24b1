#include "octet/api/output_stream.h"

#include <algorithm>

#include "octet/api/llm.h"

namespace octet {
namespace {

// Enough ids before the first generated one for its leading space to come out right.
constexpr size_t kPromptTail = 6;

std::vector<int32_t> tail_of(const std::vector<int32_t>& ids) {
  return {ids.end() - static_cast<std::ptrdiff_t>(std::min(ids.size(), kPromptTail)), ids.end()};
}

}  // namespace

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

OutputStream::OutputStream(const Tokenizer* tokenizer, SamplingParams params, RequestOutput start)
    : params_(std::move(params)), output_(std::move(start)) {
  const SpecialTokens special = params_.skip_special_tokens ? SpecialTokens::kSkip : SpecialTokens::kKeep;
  for (int32_t index = 0; index < params_.n; ++index) {
    output_.outputs.push_back(CompletionOutput{.index = index});
    Sequence sequence{.detokenizer = std::nullopt, .stops = StopStrings(params_.stop)};
    if (tokenizer && params_.detokenize) {
      sequence.detokenizer.emplace(*tokenizer, special, tail_of(output_.prompt_token_ids));
    }
    sequences_.push_back(std::move(sequence));
  }
}

void OutputStream::apply(const RequestEvent& event, std::vector<OutputDelta>& deltas) {
  if (!event.prompt_logprobs.empty()) output_.prompt_logprobs = event.prompt_logprobs;
  output_.num_cached_tokens = event.num_cached_tokens;
  output_.times = event.times;
  newly_stopped_.clear();
  for (const SequenceDelta& delta : event.deltas) {
    const CompletionOutput& output = output_.outputs[static_cast<size_t>(delta.index)];
    if (output.finish_reason != FinishReason::kNone) continue;
    OutputDelta out{.index = delta.index, .text = {}, .token_ids = {}};
    apply_delta(delta, out);
    deltas.push_back(std::move(out));
    const bool engine_knows = delta.finish_reason != FinishReason::kNone;
    if (output.finish_reason != FinishReason::kNone && !engine_knows) newly_stopped_.push_back(delta.index);
  }
  output_.finished = event.finished;
}

void OutputStream::apply_delta(const SequenceDelta& delta, OutputDelta& out) {
  CompletionOutput& output = output_.outputs[static_cast<size_t>(delta.index)];
  const size_t num_new = delta.token_ids.size();
  for (size_t i = 0; i < num_new; ++i) {
    const int32_t token = delta.token_ids[i];
    output.token_ids.push_back(token);
    out.token_ids.push_back(token);
    if (i < delta.logprobs.size()) {
      output.logprobs.push_back(delta.logprobs[i]);
      if (!delta.logprobs[i].empty()) output.cumulative_logprob += delta.logprobs[i].front().logprob;
    }
    // The token that stopped the sequence is not part of its text unless asked for.
    const bool stopping = delta.finish_reason == FinishReason::kStop && i + 1 == num_new;
    if (stopping && !params_.include_stop_str_in_output) continue;
    if (push_token(token, static_cast<size_t>(delta.index), out.text)) break;
  }
  if (delta.finish_reason != FinishReason::kNone && output.finish_reason == FinishReason::kNone)
    finish_sequence(delta, out);
  output.text += out.text;
}

bool OutputStream::push_token(int32_t token_id, size_t index, std::string& text) {
  Sequence& sequence = sequences_[index];
  if (!sequence.detokenizer) return false;
  CompletionOutput& output = output_.outputs[index];
  const auto piece = sequence.detokenizer->push(token_id);
  if (!piece) return false;
  if (static_cast<int64_t>(output.token_ids.size()) <= params_.min_tokens) {
    text += sequence.stops.push_unchecked(*piece);
    return false;
  }
  const StopStrings::Result result = sequence.stops.push(*piece);
  text += result.text;
  if (!result.matched) return false;
  if (params_.include_stop_str_in_output) text += *result.matched;
  output.finish_reason = FinishReason::kStop;
  output.stop_reason = *result.matched;
  return true;
}

void OutputStream::finish_sequence(const SequenceDelta& delta, OutputDelta& out) {
  const auto index = static_cast<size_t>(delta.index);
  CompletionOutput& output = output_.outputs[index];
  output.finish_reason = delta.finish_reason;
  output.error = delta.error;
  Sequence& sequence = sequences_[index];
  if (sequence.detokenizer) {
    const StopStrings::Result last = sequence.stops.push(sequence.detokenizer->finish());
    out.text += last.text;
    if (last.matched) {
      output.finish_reason = FinishReason::kStop;
      output.stop_reason = *last.matched;
      return;
    }
    out.text += sequence.stops.finish();
  }
  const bool asked_for = delta.stop_token_id && std::find(params_.stop_token_ids.begin(), params_.stop_token_ids.end(),
                                                          *delta.stop_token_id) != params_.stop_token_ids.end();
  if (asked_for) output.stop_reason = *delta.stop_token_id;
}

}  // namespace octet
