#include "octet/server/embedding_request.h"

#include <algorithm>
#include <limits>

namespace octet {
namespace {

// Cutting a vector short means something only for models that were trained for it; the words are vLLM's.
int64_t read_dimensions(Fields& fields, const ModelFacts& facts) {
  const auto given = fields.integer("dimensions", 1, std::numeric_limits<int32_t>::max());
  const EmbeddingFacts& model = facts.embedding;
  if (!given || *given == model.size) return 0;
  if (!model.is_matryoshka) {
    fail_unsupported("dimensions",
                     "Model \"{}\" does not support matryoshka representation, changing output dimensions will lead to "
                     "poor results.",
                     facts.names.front());
  }
  const auto& known = model.matryoshka_dimensions;
  if (!known.empty() && std::find(known.begin(), known.end(), *given) == known.end()) {
    std::string list;
    for (const int64_t one : known) list += (list.empty() ? "" : ", ") + std::to_string(one);
    fail_field("dimensions",
               "Model \"{}\" only supports [{}] matryoshka dimensions, use other output dimensions will lead to poor "
               "results.",
               facts.names.front(), list);
  }
  if (*given > model.size) fail_field("dimensions", "must be from 1 to {}, was {}", model.size, *given);
  return *given;
}

EmbeddingRequest::Encoding read_encoding(Fields& fields) {
  const std::string format = fields.string("encoding_format").value_or("float");
  if (format == "float") return EmbeddingRequest::Encoding::kFloat;
  if (format == "base64") return EmbeddingRequest::Encoding::kBase64;
  if (format == "bytes" || format == "bytes_only") fail_unsupported("encoding_format", "only float and base64");
  fail_field("encoding_format", "must be float or base64, was \"{}\"", shortened(format, 40));
}

// vLLM's fields for other forms of the same numbers: what they are here may be asked for.
void check_form(Fields& fields) {
  if (const auto type = fields.string("embed_dtype"); type && *type != "float32") {
    fail_unsupported("embed_dtype", "only float32");
  }
  if (const auto order = fields.string("endianness"); order && *order != "little" && *order != "native") {
    fail_unsupported("endianness", "only little");
  }
  for (const char* name : {"messages", "chat_template", "mm_processor_kwargs"}) {
    const Json* value = fields.raw(name);
    if (value && !value->empty()) fail_unsupported(name, "only input, as text or token ids");
  }
}

}  // namespace

EmbeddingRequest read_embedding(const Json& body, const ModelFacts& facts) {
  Fields fields(body, "");
  EmbeddingRequest request;
  GenerationRequest& generation = request.texts.generation;
  generation.model = read_model(fields, facts);
  generation.sampling.max_tokens = 0;
  generation.sampling.detokenize = false;
  generation.max_tokens_given = true;
  generation.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  read_prompt_handling(fields, facts, generation);
  request.encoding = read_encoding(fields);
  request.dimensions = read_dimensions(fields, facts);
  request.normalize = fields.boolean("normalize");
  if (const auto older = fields.boolean("use_activation"); older && !request.normalize) request.normalize = older;
  check_form(fields);
  request.texts.prompts_field = "input";
  request.texts.prompts = read_prompts(fields, "input", facts);
  for (const char* name : {"user", "additional_data"}) fields.raw(name);
  note_unknown(fields);
  return request;
}

}  // namespace octet
