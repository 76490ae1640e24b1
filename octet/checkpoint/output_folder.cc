#include "octet/checkpoint/output_folder.h"

#include "octet/base/error.h"

namespace octet {
namespace fs = std::filesystem;

OutputFolder::OutputFolder(const std::string& folder, OutputRules rules)
    : rules_(std::move(rules)), target_(fs::path(folder).lexically_normal()) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" names out
  partial_ = target_.string() + ".partial";
  if (fs::exists(target_) && !may_replace()) {
    fail(ErrorCode::kUsage, "{}: exists and is not {}; remove it or choose another", target_.string(),
         rules_.replaceable.empty() ? "an empty folder" : rules_.replaceable);
  }
  std::error_code error;
  if (rules_.unfinished == OutputRules::Unfinished::kKeep) {
    resumed_ = fs::exists(partial_) && !fs::is_empty(partial_, error);
    if (resumed_ && !rules_.resume) {
      fail(ErrorCode::kUsage, "{}: is left from a run that was interrupted; continue it with --resume, or remove it",
           partial_.string());
    }
  } else {
    fs::remove_all(partial_, error);
  }
  if (!error) fs::create_directories(partial_, error);
  if (error) fail(ErrorCode::kIo, "{}: cannot make the folder: {}", partial_.string(), error.message());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (rules_.unfinished == OutputRules::Unfinished::kRemove) fs::remove_all(partial_, ignored);
}

bool OutputFolder::may_replace() const {
  return fs::is_directory(target_) && (fs::is_empty(target_) || (rules_.may_replace && rules_.may_replace(target_)));
}

void OutputFolder::finish() const {
  const fs::path old = target_.string() + ".old";
  std::error_code error;
  fs::remove_all(old, error);
  const bool replaces = fs::exists(target_);
  if (replaces) fs::rename(target_, old, error);
  if (!error) fs::rename(partial_, target_, error);
  if (error)
    fail(ErrorCode::kIo, "{}: cannot rename {} to it: {}", target_.string(), partial_.string(), error.message());
  if (replaces) fs::remove_all(old, error);
}

}  // namespace octet
