#include "octet/api/pooling.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "octet/base/error.h"
#include "octet/base/file.h"

namespace octet {
namespace {

using Vector = std::vector<float>;

TEST(Pooler, TakesTheMeanOrTheLast) {
  Pooler mean(PoolingType::kMean), last(PoolingType::kLast);
  EXPECT_TRUE(mean.pooled().empty());
  for (const Vector& row : {Vector{1, 2}, Vector{3, -4}, Vector{5, 8}}) {
    mean.add(row);
    last.add(row);
  }
  EXPECT_EQ(mean.pooled(), (Vector{3, 2}));
  EXPECT_EQ(last.pooled(), (Vector{5, 8}));
}

TEST(FinishedEmbedding, CutsThenNormalises) {
  const Vector vector = {3, 4, 12};
  EXPECT_EQ(finished_embedding(vector, 0, false), vector);
  EXPECT_EQ(finished_embedding(vector, 2, false), (Vector{3, 4}));
  EXPECT_EQ(finished_embedding(vector, 2, true), (Vector{0.6f, 0.8f}));
  EXPECT_EQ(finished_embedding(vector, 0, true), (Vector{3.0f / 13, 4.0f / 13, 12.0f / 13}));
  EXPECT_EQ(finished_embedding(Vector{0, 0}, 0, true), (Vector{0, 0}));
}

class PoolingFolder : public testing::Test {
 protected:
  PoolingFolder() : folder_((std::filesystem::temp_directory_path() / "octet_pooling_XXXXXX").string()) {
    if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot make " + folder_);
    std::filesystem::create_directory(folder_ + "/1_Pooling");
  }
  ~PoolingFolder() override { std::filesystem::remove_all(folder_); }

  // As sentence-transformers writes them.
  void write(const std::string& modes, bool normalizes) const {
    std::string modules = R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"})";
    if (normalizes)
      modules += R"(,{"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"})";
    write_file(folder_ + "/modules.json", modules + "]");
    write_file(folder_ + "/1_Pooling/config.json",
               R"({"word_embedding_dimension":8,"include_prompt":true,)" + modes + "}");
  }

  std::string folder_;
};

TEST_F(PoolingFolder, SaysHowVectorsAreMade) {
  const PoolingChoice none = PoolingChoice::of_folder(folder_);
  EXPECT_TRUE(none.type == PoolingType::kLast && none.normalize);
  write(R"("pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true,"pooling_mode_lasttoken":false)", false);
  const PoolingChoice mean = PoolingChoice::of_folder(folder_);
  EXPECT_TRUE(mean.type == PoolingType::kMean && !mean.normalize);
  write(R"("pooling_mode_mean_tokens":false,"pooling_mode_lasttoken":true)", true);
  const PoolingChoice last = PoolingChoice::of_folder(folder_);
  EXPECT_TRUE(last.type == PoolingType::kLast && last.normalize);
}

TEST_F(PoolingFolder, RefusesOtherWaysByName) {
  for (const char* modes : {R"("pooling_mode_cls_token":true)", R"("pooling_mode_mean_tokens":false)",
                            R"("pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":true)"}) {
    write(modes, true);
    EXPECT_THROW(PoolingChoice::of_folder(folder_), Error) << modes;
  }
  for (const char* path : {"../1_Pooling", "/1_Pooling", "1_Pooling/../../x"}) {
    write_file(folder_ + "/modules.json",
               R"([{"type":"sentence_transformers.models.Pooling","path":")" + std::string(path) + R"("}])");
    try {
      PoolingChoice::of_folder(folder_);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("must lie in the model's folder"), std::string::npos) << path;
    }
  }
  write_file(folder_ + "/modules.json", "{}");
  EXPECT_THROW(PoolingChoice::of_folder(folder_), Error);
}

TEST(PoolerConfig, IsVllms) {
  const PoolingChoice mean = PoolingChoice::of_config(R"({"pooling_type":"MEAN","normalize":false})", {});
  EXPECT_TRUE(mean.type == PoolingType::kMean && !mean.normalize);
  const PoolingChoice newer = PoolingChoice::of_config(R"({"seq_pooling_type":"MEAN","use_activation":true})", {});
  EXPECT_TRUE(newer.type == PoolingType::kMean && newer.normalize);
  for (const char* bad : {"", "[]", R"({"pooling_type":"CLS"})", R"({"normalize":1})", R"({"x":1})"}) {
    EXPECT_THROW(PoolingChoice::of_config(bad, {}), Error) << bad;
  }
}

}  // namespace
}  // namespace octet
