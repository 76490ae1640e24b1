#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "octet/checkpoint/config.h"
#include "octet/checkpoint/gguf.h"
#include "octet/checkpoint/gguf_llama.h"
#include "octet/checkpoint/gguf_pretokenizer.h"
#include "octet/checkpoint/gguf_tokenizer.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GgufFile parsed_golden(const MappedFile& mapped) { return parse_gguf(mapped.bytes(), mapped.path()); }

TEST(ConvertGguf, TensorsAreTransformers) {
  const TestFolder folder;
  const GgufConversionReport report = convert_gguf(
      {.gguf_path = golden_checkpoint("tiny_llama.gguf"), .out_folder = folder / "out", .dtype = DType::kF32});
  folder.write("expected/model.safetensors", read_file(golden_checkpoint("tiny_llama.safetensors"), 1 << 20));
  const SafetensorsFolder ours(folder / "out");
  const SafetensorsFolder expected(folder / "expected");
  EXPECT_EQ(report.num_tensors, 11);
  EXPECT_EQ(report.num_bytes, ours.num_bytes());
  ASSERT_EQ(ours.entries().size(), expected.entries().size());
  for (const auto& [name, entry] : expected.entries()) {
    SCOPED_TRACE(name);
    const ConstTensor tensor = ours.tensor(name);
    ASSERT_EQ(tensor.shape, entry.shape);
    ASSERT_EQ(tensor.dtype, DType::kF32);
    EXPECT_EQ(std::memcmp(tensor.bytes, expected.tensor(name).bytes, static_cast<size_t>(tensor.num_bytes())), 0);
  }
}

TEST(ConvertGguf, ConfigurationIsReadBack) {
  const TestFolder folder;
  convert_gguf({.gguf_path = golden_checkpoint("tiny_llama.gguf"), .out_folder = folder / "out"});
  const ModelConfig config = ModelConfig::from_folder(folder / "out");
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 32);
  EXPECT_EQ(config.num_hidden_layers, 1);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_position_embeddings, 128);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 50000.0);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_THAT(config.bos_token_id, ElementsAre(1));
  EXPECT_THAT(GenerationConfig::from_folder(folder / "out").eos_token_id, ElementsAre(2));
  const Json tokenizer = read_json_file(folder / "out/tokenizer_config.json");
  EXPECT_EQ(tokenizer["bos_token"], "<|im_start|>");
  EXPECT_EQ(tokenizer["chat_template"], "{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(SafetensorsFolder(folder / "out").tensor("model.norm.weight").dtype, DType::kBF16);
}

// tokenizer.json against the file that Hugging Face's tokenizers saved for the same vocabulary.
void expect_same_tokenizer(const std::string& stem) {
  const MappedFile mapped(golden_checkpoint(stem + ".gguf"));
  const GgufFile file = parsed_golden(mapped);
  const Json ours = tokenizer_from_gguf(GgufMetadata(file, mapped.path())).tokenizer;
  const Json theirs = read_json_file(golden_checkpoint(stem + ".tokenizer.json"));
  for (const char* part : {"version", "added_tokens", "normalizer", "pre_tokenizer"}) {
    EXPECT_EQ(nlohmann::json(ours[part]), nlohmann::json(theirs[part])) << part;
  }
  for (const auto& [key, value] : theirs["model"].items())
    EXPECT_EQ(nlohmann::json(ours["model"][key]), nlohmann::json(value)) << key;
}

TEST(ConvertGguf, ByteLevelTokenizerIsTokenizersOwn) { expect_same_tokenizer("tiny_llama"); }
TEST(ConvertGguf, SentencePieceTokenizerIsTokenizersOwn) { expect_same_tokenizer("tiny_spm"); }

TEST(ConvertGguf, BeginningOfSequenceIsAdded) {
  const MappedFile mapped(golden_checkpoint("tiny_spm.gguf"));
  const GgufFile file = parsed_golden(mapped);
  const Json post = tokenizer_from_gguf(GgufMetadata(file, "f")).tokenizer["post_processor"];
  EXPECT_EQ(post["single"].dump(),
            R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}])");
  EXPECT_EQ(post["special_tokens"].dump(), R"({"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}})");
}

TEST(ConvertGguf, MergesAreThoseOfTheConverter) {
  const MappedFile mapped(golden_checkpoint("tiny_spm.gguf"));
  const GgufFile file = parsed_golden(mapped);
  const GgufMetadata metadata(file, mapped.path());
  std::vector<bool> is_piece;
  for (int64_t type : *metadata.find_ints("tokenizer.ggml.token_type")) is_piece.push_back(type == 1);
  const auto merges = merges_from_scores({.pieces = metadata.get_strings("tokenizer.ggml.tokens"),
                                          .scores = *metadata.find_numbers("tokenizer.ggml.scores"),
                                          .is_piece = is_piece});
  const Json expected = read_json_file(golden_checkpoint("merges.json"));
  ASSERT_EQ(merges.size(), expected.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    EXPECT_EQ(merges[i].first, expected[i][0].get<std::string>()) << i;
    EXPECT_EQ(merges[i].second, expected[i][1].get<std::string>()) << i;
  }
}

TEST(ConvertGguf, ReplacesOnlyItsOwnFolders) {
  const TestFolder folder;
  const GgufConversion conversion{.gguf_path = golden_checkpoint("tiny_llama.gguf"), .out_folder = folder / "out"};
  folder.write("out/thesis.txt", "do not lose");
  EXPECT_THAT(error_text([&] { convert_gguf(conversion); }),
              HasSubstr("out: exists and is not a folder that octet converted"));
  EXPECT_EQ(read_file(folder / "out/thesis.txt", 100), "do not lose");
  std::filesystem::remove(folder / "out/thesis.txt");
  convert_gguf(conversion);
  folder.write("out/stale", "x");
  convert_gguf({.gguf_path = conversion.gguf_path, .out_folder = folder / "out/"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out/stale"));
  EXPECT_TRUE(std::filesystem::exists(folder / "out/model.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.old"));
}

TEST(ConvertGguf, LeavesTheOldFolderWhenItFails) {
  const TestFolder folder;
  std::string bytes = read_file(golden_checkpoint("tiny_llama.gguf"), 1 << 20);
  folder.write("good.gguf", bytes);
  convert_gguf({.gguf_path = folder / "good.gguf", .out_folder = folder / "out"});
  for (size_t i = bytes.size() - 64; i < bytes.size(); ++i) bytes[i] = '\xff';  // NaN in the last tensor
  folder.write("bad.gguf", bytes);
  EXPECT_THAT(error_text([&] { convert_gguf({.gguf_path = folder / "bad.gguf", .out_folder = folder / "out"}); }),
              HasSubstr("not finite"));
  EXPECT_EQ(read_json_file(folder / "out/octet_conversion.json")["source"], "good.gguf");
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial"));
}

TEST(ConvertGguf, NamesWhatItDoesNotKnow) {
  const TestFolder folder;
  const std::string whole = read_file(golden_checkpoint("tiny_llama.gguf"), 1 << 20);
  const auto error_after = [&](const std::string& from, const std::string& to) {
    std::string bytes = whole;
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    EXPECT_EQ(from.size(), to.size());
    bytes.replace(at, from.size(), to);
    folder.write("changed.gguf", bytes);
    return error_text([&] { convert_gguf({.gguf_path = folder / "changed.gguf", .out_folder = folder / "out"}); });
  };
  EXPECT_THAT(error_after("llama", "phi-3"), HasSubstr("general.architecture \"phi-3\" is not supported"));
  EXPECT_THAT(error_after("smollm", "gpt-9x"),
              HasSubstr("tokenizer.ggml.pre \"gpt-9x\" is not supported; octet knows default"));
  EXPECT_THAT(error_after("gpt2", "bert"), HasSubstr("tokenizer.ggml.model \"bert\" is not supported"));
  EXPECT_THAT(error_after("blk.0.ffn_up.weight", "blk.0.ffn_xx.weight"), HasSubstr("blk.0.ffn_up.weight is missing"));
  EXPECT_THAT(error_after("llama.block_count", "llama.block_xxxxx"), HasSubstr("llama.block_count is missing"));
  EXPECT_THAT(error_after("<tool>", "<|im_s"), "no error");
  EXPECT_THAT(error_after("\xc4\xa0 the", "\xc4\xa0 thx"), HasSubstr("names or makes a token that does not exist"));
  EXPECT_THAT(error_after("<tool>", "<tool\xff"), HasSubstr("not UTF-8"));
}

TEST(ConvertGguf, UndoesThePermutationOfHeads) {
  // Two heads of four rows, as convert_hf_to_gguf interleaves them: 0 2 1 3 | 4 6 5 7 of the original.
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 8; ++row) rows.push_back(unpermuted_source_row(row, 4));
  EXPECT_THAT(rows, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(ConvertGguf, RopeScaling) {
  GgufFile file;
  file.metadata = {{"llama.context_length", int64_t{8192}},
                   {"llama.attention.layer_norm_rms_epsilon", 1e-5},
                   {"llama.rope.freq_base", 500000.0}};
  const GgufMetadata metadata(file, "f");
  const LlamaDims dims{.num_hidden_layers = 1,
                       .hidden_size = 128,
                       .intermediate_size = 1,
                       .num_attention_heads = 1,
                       .num_key_value_heads = 1,
                       .head_dim = 128,
                       .vocab_size = 1};
  const GgufTokenizer tokenizer;
  const auto scaling = [&] {
    return llama_config_from_gguf(
        {.file = file, .metadata = metadata, .dims = dims, .tokenizer = tokenizer})["rope_scaling"];
  };
  EXPECT_TRUE(scaling().is_null());
  file.metadata.insert_or_assign("llama.rope.scaling.type", GgufValue(std::string("linear")));
  file.metadata.insert_or_assign("llama.rope.scaling.factor", GgufValue(4.0));
  EXPECT_EQ(scaling().dump(), R"({"rope_type":"linear","factor":4.0})");
  file.metadata.insert_or_assign("llama.rope.scaling.type", GgufValue(std::string("yarn")));
  file.metadata.insert_or_assign("llama.rope.scaling.original_context_length", GgufValue(int64_t{4096}));
  EXPECT_EQ(scaling().dump(), R"({"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":4096})");
  file.metadata.insert_or_assign("llama.rope.scaling.type", GgufValue(std::string("longrope")));
  EXPECT_THAT(error_text([&] { scaling(); }), HasSubstr("\"longrope\" is not supported"));

  // Llama 3.1's divisors, by the formula of its paper's code: 1, a blend, 8.
  std::vector<float> divisors;
  for (int i = 0; i < 64; ++i) {
    const double wavelength = 2 * 3.14159265358979 * std::pow(500000.0, i / 64.0);
    const double blend = (8192 / wavelength - 1) / 3;
    divisors.push_back(static_cast<float>(wavelength < 2048   ? 1.0
                                          : wavelength > 8192 ? 8.0
                                                              : 1 / ((1 - blend) / 8 + blend)));
  }
  file.tensors = {{.name = "rope_freqs.weight",
                   .type = GgufType::kF32,
                   .shape = {64},
                   .bytes = std::as_bytes(std::span(divisors))}};
  EXPECT_EQ(
      scaling().dump(),
      R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192})");
  divisors[20] *= 1.1f;
  EXPECT_THAT(error_text([&] { scaling(); }), HasSubstr("rope_freqs.weight: divisor 20"));
}

TEST(ConvertGguf, PreTokenizersOfEachName) {
  EXPECT_EQ(
      byte_level_pre_tokenizer("smollm", "f").pre_tokenizer.dump(),
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]})");
  EXPECT_TRUE(byte_level_pre_tokenizer("llama-bpe", "f").ignore_merges);
  EXPECT_TRUE(byte_level_pre_tokenizer("llama-bpe", "f").add_bos);
  EXPECT_EQ(byte_level_pre_tokenizer("qwen2", "f").normalizer.dump(), R"({"type":"NFC"})");
  EXPECT_EQ(sentencepiece_pre_tokenizer(false).normalizer["normalizers"].size(), 1u);
}

}  // namespace
}  // namespace octet
