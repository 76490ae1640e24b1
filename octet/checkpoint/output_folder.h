// OutputFolder: a model's folder that appears under its name when it is whole. Until then it is "<folder>.partial",
// which has no config.json and so is never taken for a checkpoint.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace octet {

struct OutputRules {
  // Whether a folder that exists, and is not empty, may be replaced. Empty: never.
  std::function<bool(const std::filesystem::path& folder)> may_replace;
  std::string replaceable;  // what `may_replace` accepts, in words, for the error
  // What becomes of the partial folder when the work fails or is killed: it is removed, also a left-over one, or it is
  // kept, to be continued.
  enum class Unfinished : uint8_t { kRemove, kKeep } unfinished = Unfinished::kRemove;
  bool resume = false;  // kKeep: continue a left-over one; without it one that is there is an error
};

class OutputFolder {
 public:
  // Throws Error{kUsage} for a target that may not be replaced, Error{kIo}.
  OutputFolder(const std::string& folder, OutputRules rules);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::filesystem::path& target() const { return target_; }
  std::string partial() const { return partial_.string(); }
  std::string file(std::string_view name) const { return (partial_ / name).string(); }
  // Whether an earlier run's partial folder is continued.
  bool resumed() const { return resumed_; }
  // Moves the whole into place.
  void finish() const;

 private:
  bool may_replace() const;

  OutputRules rules_;
  std::filesystem::path target_, partial_;
  bool resumed_ = false;
};

}  // namespace octet
