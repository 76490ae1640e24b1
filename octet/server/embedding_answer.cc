#include "octet/server/embedding_answer.h"

#include <algorithm>
#include <cmath>

#include "octet/api/pooling.h"
#include "octet/base/error.h"
#include "octet/server/base64.h"

namespace octet {
namespace {

class EmbeddingFormat final : public AnswerFormat {
 public:
  explicit EmbeddingFormat(const EmbeddingOptions& options) : options_(options) {}

  std::string id_prefix() const override { return "embd-"; }
  ErrorWording error_wording() const override { return ErrorWording::kOpenAi; }
  void begin(const AnswerHead& head) override { head_ = head; }

  Json whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) override {
    Json data = Json::array();
    for (const ChoiceNews& news : choices) {
      data.push_back({{"object", "embedding"}, {"index", news.index}, {"embedding", embedding(news)}});
    }
    return {{"id", head_.id},
            {"object", "list"},
            {"created", head_.created},
            {"model", head_.model},
            {"data", std::move(data)},
            {"usage",
             {{"prompt_tokens", usage.num_prompt_tokens},
              {"total_tokens", usage.num_prompt_tokens},
              {"completion_tokens", 0},
              {"prompt_tokens_details", {{"cached_tokens", usage.num_cached_tokens}}}}}};
  }

  void write_news(ChoiceNews&, const AnswerUsage&, bool, std::string&) override { OCTET_CHECK(false); }
  void write_end(const AnswerUsage&, std::string&) override { OCTET_CHECK(false); }
  void write_error(const ApiError&, std::string&) override { OCTET_CHECK(false); }

 private:
  Json embedding(const ChoiceNews& news) const {
    if (news.finish_reason == FinishReason::kAbort) {
      throw ApiError(503, "request_aborted", "The request was ended before it was done.");
    }
    const std::vector<float> vector = finished_embedding(news.pooled, options_.dimensions, options_.normalize);
    const bool broken = std::any_of(vector.begin(), vector.end(), [](float x) { return !std::isfinite(x); });
    if (broken || vector.empty()) {
      ApiError error(500, "generation_failed", "The model gave no numbers for this input.");
      error.headers.emplace_back("x-should-retry", "false");
      throw error;
    }
    if (options_.encoding == EmbeddingRequest::Encoding::kBase64) return base64(std::as_bytes(std::span(vector)));
    return vector;
  }

  const EmbeddingOptions options_;
  AnswerHead head_;
};

}  // namespace

std::unique_ptr<AnswerFormat> embedding_format(const EmbeddingOptions& options) {
  return std::make_unique<EmbeddingFormat>(options);
}

}  // namespace octet
