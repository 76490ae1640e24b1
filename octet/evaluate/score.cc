#include "octet/evaluate/score.h"

#include <future>

#include "octet/base/error.h"

namespace octet {

void for_each_logits(Engine& engine, std::span<const int32_t> token_ids,
                     const std::function<void(int64_t, std::span<const float>)>& on_row) {
  std::promise<std::string> finished;
  Request request;
  request.id = "score";
  request.prompt_token_ids.assign(token_ids.begin(), token_ids.end());
  request.sampling.temperature = 0.0;
  request.sampling.max_tokens = 1;
  request.sampling.ignore_eos = true;
  request.row_scope = Request::RowScope::kAll;
  request.on_logits = on_row;
  request.on_event = [&finished, error = std::string()](const RequestEvent& event) mutable {
    for (const SequenceDelta& delta : event.deltas) {
      if (delta.finish_reason == FinishReason::kError) error = delta.error;
      if (delta.finish_reason == FinishReason::kAbort) error = "aborted";
    }
    if (event.finished) finished.set_value(error);
  };
  if (engine.submit(std::move(request)) != SubmitResult::kAccepted)
    fail(ErrorCode::kInternal, "the engine takes no request");
  const std::string error = finished.get_future().get();
  if (!error.empty()) fail(ErrorCode::kInternal, "evaluation failed: {}", error);
}

}  // namespace octet
