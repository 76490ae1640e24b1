#include "octet/checkpoint/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kVariables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"};
const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kOther = "fedcba9876543210fedcba9876543210fedcba98";

// A cache as huggingface_hub leaves it: snapshots of links to blobs.
class HubCacheTest : public ::testing::Test {
 protected:
  HubCacheTest() {
    for (const char* name : kVariables) ::unsetenv(name);
    ::setenv("HF_HUB_CACHE", folder_.path().c_str(), 1);
  }
  ~HubCacheTest() override { ::unsetenv("HF_HUB_CACHE"); }

  std::string repository(const std::string& rest) const { return folder_ / ("models--org--name/" + rest); }
  void add(const std::string& commit, const std::string& file, const std::string& contents) const {
    const std::string blob = "blob_of_" + file;
    folder_.write("models--org--name/blobs/" + blob, contents);
    fs::create_directories(repository("snapshots/" + commit));
    fs::create_symlink("../../blobs/" + blob, repository("snapshots/" + commit + "/" + file));
  }
  void add_ref(const std::string& name, const std::string& commit) const {
    folder_.write("models--org--name/refs/" + name, commit);
  }

  TestFolder folder_;
};

TEST_F(HubCacheTest, OrderOfTheVariables) {
  ::setenv("HOME", "/h", 1);
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  ::setenv("HF_HOME", "/f", 1);
  ::setenv("HUGGINGFACE_HUB_CACHE", "/g", 1);
  EXPECT_EQ(hub_cache().folder, folder_.path());
  ::unsetenv("HF_HUB_CACHE");
  EXPECT_EQ(hub_cache().folder, "/g");
  ::unsetenv("HUGGINGFACE_HUB_CACHE");
  EXPECT_EQ(hub_cache().folder, "/f/hub");
  ::unsetenv("HF_HOME");
  EXPECT_EQ(hub_cache().folder, "/x/huggingface/hub");
  ::unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(hub_cache().folder, "/h/.cache/huggingface/hub");
}

TEST_F(HubCacheTest, FindsRevisions) {
  for (const std::string& commit : {kCommit, kOther}) {
    add(commit, "config.json", "{}");
    add(commit, "model.safetensors", "x");
  }
  add_ref("main", kCommit + "\n");
  add_ref("refs/pr/1", kOther);
  const std::string snapshots = repository("snapshots/");
  EXPECT_EQ(resolve_model("org/name"), snapshots + kCommit);
  EXPECT_EQ(resolve_model("org/name", "main"), snapshots + kCommit);
  EXPECT_EQ(resolve_model("org/name@refs/pr/1"), snapshots + kOther);
  EXPECT_EQ(resolve_model("org/name@" + kOther), snapshots + kOther);
  EXPECT_EQ(resolve_model(folder_.path()), folder_.path());
  EXPECT_THAT(error_text([] { resolve_model("org/name@v2"); }), HasSubstr("no revision \"v2\""));
  EXPECT_THAT(error_text([] { resolve_model("org/name", std::string(40, 'a')); }), HasSubstr("no snapshot aaaa"));
  EXPECT_THAT(error_text([] { resolve_model("org/name@a", "b"); }), HasSubstr("names one revision"));
  add_ref("bad", "not a commit");
  EXPECT_THAT(error_text([] { resolve_model("org/name@bad"); }), HasSubstr("does not hold a commit"));
}

TEST_F(HubCacheTest, NewestSnapshotWithoutMain) {
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }),
              HasSubstr("models--org--name in the Hugging Face cache " + folder_.path() + " (from HF_HUB_CACHE)"));
  fs::create_directories(repository("refs"));
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }), HasSubstr("holds no snapshot"));
  for (const std::string& commit : {kOther, kCommit}) {
    add(commit, "config.json", "{}");
    add(commit, "model.safetensors", "x");
  }
  fs::last_write_time(repository("snapshots/" + kOther), fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_EQ(resolve_model("org/name"), repository("snapshots/" + kOther));
}

TEST_F(HubCacheTest, ListsWhatAHalfDownloadedSnapshotLacks) {
  add_ref("main", kCommit);
  add(kCommit, "tokenizer.json", "{}");
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }), HasSubstr("missing: config.json, model.safetensors"));
  add(kCommit, "config.json", "{}");
  add(kCommit, "model.safetensors.index.json", R"({"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  add(kCommit, "m-2.safetensors", "x");
  folder_.write("models--org--name/blobs/abc.incomplete", "x");
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }),
              HasSubstr("(1 unfinished files); missing: m-1.safetensors"));
  add(kCommit, "m-1.safetensors", "x");
  EXPECT_EQ(resolve_model("org/name"), repository("snapshots/" + kCommit));
  fs::remove(repository("blobs/blob_of_m-2.safetensors"));
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }), HasSubstr("missing: m-2.safetensors"));
}

TEST_F(HubCacheTest, LinksStayInsideTheRepository) {
  add_ref("main", kCommit);
  add(kCommit, "config.json", "{}");
  add(kCommit, "model.safetensors", "x");
  folder_.write("secret", "x");
  fs::create_symlink("../../../secret", repository("snapshots/" + kCommit + "/tokenizer.json"));
  EXPECT_THAT(error_text([] { resolve_model("org/name"); }), HasSubstr("outside"));
  fs::remove(repository("snapshots/" + kCommit + "/tokenizer.json"));
  fs::create_directory_symlink(folder_.path(), repository("snapshots/" + kOther));
  EXPECT_THAT(error_text([] { resolve_model("org/name@" + kOther); }), HasSubstr("leads out of"));
}

TEST_F(HubCacheTest, RefusesNamesThatAreNone) {
  for (const char* name : {"org/../name", "org/..", "org/na me", "a/b/c", "org/", "org//name", "org/na--me", "-x/y",
                           "org/name@../x", "org/name@a\\b", "", "@main"}) {
    EXPECT_NE(error_text([&] { resolve_model(name); }), "no error") << name;
  }
  EXPECT_THAT(error_text([] { resolve_model("/no/such/folder"); }), HasSubstr("no such folder"));
  EXPECT_THAT(error_text([] { resolve_model("."), resolve_model("./nothing"); }), HasSubstr("no such folder"));
  folder_.write("m.gguf", "x");
  EXPECT_THAT(error_text([&] { resolve_model(folder_ / "m.gguf"); }), HasSubstr("octet convert"));
}

}  // namespace
}  // namespace octet
