#include "tests/checkpoints/tiny_llama.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "octet/engine/client_for_test.h"

namespace octet {

void Matrix::scale_rows(int64_t first, int64_t count, float factor) {
  const int64_t columns = shape.rank() == 2 ? shape[1] : 1;
  for (int64_t i = first * columns; i < (first + count) * columns; ++i) values[static_cast<size_t>(i)] *= factor;
}

void TinyLlama::fill() {
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  const auto add = [&](const std::string& name, Shape shape, float size) {
    Matrix matrix{shape, std::vector<float>(static_cast<size_t>(shape.num_elements()))};
    for (float& value : matrix.values) value = to_f32(from_f32<BF16>(normal(random) * size));
    tensors.emplace(name + ".weight", std::move(matrix));
  };
  const auto add_norm = [&](const std::string& name) {
    tensors.emplace(name + ".weight", Matrix{Shape{hidden}, std::vector<float>(static_cast<size_t>(hidden), 1.0f)});
  };
  const auto linear = [&](const std::string& name, int64_t n, int64_t k) {
    add(name, Shape{n, k}, 1.5f / std::sqrt(static_cast<float>(k)));
  };
  add("model.embed_tokens", Shape{vocabulary, hidden}, 1.0f);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = layer_name(i);
    add_norm(layer + ".input_layernorm");
    add_norm(layer + ".post_attention_layernorm");
    linear(layer + ".self_attn.q_proj", heads * head_dim, hidden);
    linear(layer + ".self_attn.k_proj", kv_heads * head_dim, hidden);
    linear(layer + ".self_attn.v_proj", kv_heads * head_dim, hidden);
    linear(layer + ".self_attn.o_proj", hidden, heads * head_dim);
    const auto mlp = [&](const std::string& module, int64_t width, const std::array<std::string, 3>& names) {
      linear(module + "." + names[0], width, hidden);
      linear(module + "." + names[1], width, hidden);
      linear(module + "." + names[2], hidden, width);
    };
    const std::array<std::string, 3> projections = {"gate_proj", "up_proj", "down_proj"};
    if (mixture == Mixture::kNone) {
      mlp(layer + ".mlp", intermediate, projections);
      continue;
    }
    const bool mixtral = mixture == Mixture::kMixtral;
    const std::string module = layer + (mixtral ? ".block_sparse_moe" : ".mlp");
    add(module + ".gate", Shape{experts, hidden}, router_size);
    for (int64_t e = 0; e < experts; ++e) {
      const auto names = mixtral ? std::array<std::string, 3>{"w1", "w3", "w2"} : projections;
      mlp(module + ".experts." + std::to_string(e), intermediate, names);
    }
    if (mixture != Mixture::kQwen2Moe) continue;
    mlp(module + ".shared_expert", shared_intermediate, projections);
    linear(module + ".shared_expert_gate", 1, hidden);
  }
  add_norm("model.norm");
  linear("lm_head", vocabulary, hidden);
  config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"},       {"hidden_size", hidden},
            {"intermediate_size", intermediate},     {"num_hidden_layers", layers}, {"num_attention_heads", heads},
            {"num_key_value_heads", kv_heads},       {"head_dim", head_dim},        {"vocab_size", vocabulary},
            {"max_position_embeddings", 256},        {"rms_norm_eps", 1e-5},        {"torch_dtype", "float32"}};
  if (mixture == Mixture::kNone) return;
  config["num_experts_per_tok"] = experts_per_token;
  if (mixture == Mixture::kMixtral) {
    config["architectures"] = {"MixtralForCausalLM"};
    config["model_type"] = "mixtral";
    config["num_local_experts"] = experts;
    return;
  }
  const bool qwen2 = mixture == Mixture::kQwen2Moe;
  config["architectures"] = {qwen2 ? "Qwen2MoeForCausalLM" : "Qwen3MoeForCausalLM"};
  config["model_type"] = qwen2 ? "qwen2_moe" : "qwen3_moe";
  config["num_experts"] = experts;
  config["moe_intermediate_size"] = intermediate;
  config["shared_expert_intermediate_size"] = shared_intermediate;
  config["norm_topk_prob"] = !qwen2;
  config["qkv_bias"] = false;
  for (int64_t i = 0; i < layers && !qwen2; ++i) {
    for (const char* norm : {".self_attn.q_norm", ".self_attn.k_norm"})
      tensors.emplace(layer_name(i) + norm + ".weight",
                      Matrix{Shape{head_dim}, std::vector<float>(static_cast<size_t>(head_dim), 1.0f)});
  }
}

void TinyLlama::rename(const std::string& from, const std::string& to) {
  std::map<std::string, Matrix> renamed;
  for (auto& [name, matrix] : tensors) {
    const size_t at = name.rfind("." + from + ".weight");
    renamed.emplace(at == std::string::npos ? name : name.substr(0, at + 1) + to + ".weight", std::move(matrix));
  }
  tensors = std::move(renamed);
}

std::vector<std::string> TinyLlama::linears() const {
  std::vector<std::string> names;
  for (const auto& [name, matrix] : tensors) {
    const bool numbered = name.ends_with(".w1.weight") || name.ends_with(".w2.weight") || name.ends_with(".w3.weight");
    if (numbered || name.ends_with("_proj.weight")) names.push_back(name.substr(0, name.size() - 7));
  }
  return names;
}

void TinyLlama::add_plain(TestCheckpoint& checkpoint, const std::vector<std::string>& skip, DType dtype) const {
  for (const auto& [name, matrix] : tensors) {
    const bool skipped = std::any_of(skip.begin(), skip.end(), [&, &n = name](auto& s) { return n == s + ".weight"; });
    if (!skipped) checkpoint.add(name, dtype, matrix.shape, matrix.values);
  }
}

void TinyLlama::write(const TestFolder& folder, const TestCheckpoint& checkpoint) const {
  folder.write("config.json", config.dump());
  checkpoint.write(folder);
}

EngineOptions tiny_options(const TestFolder& folder) {
  EngineOptions options;
  options.model_folder = folder.path();
  options.device = "cpu";
  options.block_size = 4;
  options.max_num_seqs = 16;
  options.max_queued_requests = 64;
  options.max_num_batched_tokens = 64;
  options.num_threads = 1;
  return options;
}

namespace {

enum class Wanted : uint8_t { kTokens, kTokensAndLogits };

TinyAnswers ask(Engine& engine, Wanted wanted) {
  constexpr int kNumPrompts = 6;
  std::vector<std::map<int64_t, std::vector<float>>> rows(kNumPrompts);
  Client client;
  for (int i = 0; i < kNumPrompts; ++i) {
    Request request =
        make_request(std::to_string(i), prompt_of(5 + 7 * i, i % 2), {.temperature = 0.0, .max_tokens = 9});
    if (wanted == Wanted::kTokensAndLogits) {
      request.row_scope = Request::RowScope::kAll;
      request.on_logits = [&rows, i](int64_t position, std::span<const float> logits) {
        rows[static_cast<size_t>(i)][position].assign(logits.begin(), logits.end());
      };
    }
    client.submit(engine, std::move(request));
  }
  TinyAnswers answers;
  for (auto& [id, answer] : client.wait()) {
    EXPECT_EQ(answer.error, "");
    answers.tokens[id] = answer.tokens[0];
    answers.num_cached_tokens += answer.num_cached_tokens;
  }
  answers.num_preemptions = engine.metrics().num_preemptions;
  for (const auto& of_prompt : rows) {
    for (const auto& [position, row] : of_prompt) answers.logits.insert(answers.logits.end(), row.begin(), row.end());
  }
  return answers;
}

}  // namespace

TinyAnswers answers_of(const EngineOptions& options) {
  Engine engine(options);
  return ask(engine, Wanted::kTokensAndLogits);
}

TinyAnswers answers_behind_first_prompt(const EngineOptions& options) {
  Engine engine(options);
  Client client;
  client.submit(engine, make_request("first", prompt_of(40, 2), {.temperature = 0.0, .max_tokens = 1}));
  EXPECT_EQ(client.wait().at("first").error, "");
  return ask(engine, Wanted::kTokensAndLogits);
}

TinyAnswers second_answers_of(const EngineOptions& options) {
  Engine engine(options);
  ask(engine, Wanted::kTokensAndLogits);
  return ask(engine, Wanted::kTokens);
}

float largest_difference(const TinyAnswers& a, const TinyAnswers& b) {
  EXPECT_EQ(a.logits.size(), b.logits.size());
  float largest = 0.0f;
  for (size_t i = 0; i < std::min(a.logits.size(), b.logits.size()); ++i) {
    const float difference = std::fabs(a.logits[i] - b.logits[i]);
    largest = difference <= largest ? largest : difference;  // NaN stays
  }
  return largest;
}

}  // namespace octet
