#include "octet/checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/log.h"
#include "octet/checkpoint/safetensors_index.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxNameBytes = 200;
constexpr int64_t kMaxRefBytes = 4096;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool is_commit(std::string_view text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// One part of "org/name", or of a revision such as "refs/pr/1".
bool is_plain_part(std::string_view part) {
  return !part.empty() && part[0] != '.' && part[0] != '-' && part.find("..") == std::string_view::npos &&
         std::all_of(part.begin(), part.end(), is_word);
}

bool are_plain_parts(std::string_view text, size_t max_parts) {
  if (text.size() > kMaxNameBytes) return false;
  size_t parts = 0;
  while (true) {
    const size_t slash = text.find('/');
    if (!is_plain_part(text.substr(0, slash)) || ++parts > max_parts) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

struct ModelName {
  std::string repository;  // "org/name"
  std::string revision;    // "" when not given
};

ModelName parse_name(std::string_view model, std::string_view revision) {
  ModelName name{.repository = std::string(model), .revision = std::string(revision)};
  if (const size_t at = model.rfind('@'); at != std::string_view::npos) {
    name.repository = std::string(model.substr(0, at));
    if (!revision.empty() && revision != model.substr(at + 1))
      fail(ErrorCode::kUsage, "{}: names one revision, the revision \"{}\" is asked for as well", model, revision);
    name.revision = std::string(model.substr(at + 1));
  }
  // "--" separates the parts in the cache's folder names, so that a name may not hold it.
  if (!are_plain_parts(name.repository, 2) || name.repository.find("--") != std::string::npos) {
    fail(ErrorCode::kUsage, "{}: neither a folder nor a model's name such as org/name or org/name@revision", model);
  }
  if (!name.revision.empty() && !are_plain_parts(name.revision, 8))
    fail(ErrorCode::kUsage, "{}: \"{}\" is not a revision", model, name.revision);
  return name;
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return std::string(value);
}

std::vector<fs::path> list(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    paths.push_back(it->path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string names_in(const fs::path& folder) {
  std::string names;
  for (const fs::path& path : list(folder)) names += (names.empty() ? "" : ", ") + path.filename().string();
  return names.empty() ? "none" : names;
}

// Without a "main" there may still be a snapshot, fetched by its commit or copied by hand: the newest is taken.
std::string newest_snapshot(const fs::path& repository, const ModelName& name) {
  fs::path newest;
  for (const fs::path& path : list(repository / "snapshots")) {
    if (!is_commit(path.filename().string())) continue;
    if (newest.empty() || fs::last_write_time(path) > fs::last_write_time(newest)) newest = path;
  }
  if (newest.empty())
    fail(ErrorCode::kModel, "{}: {} holds no snapshot; download the model first", name.repository, repository.string());
  const std::string commit = newest.filename().string();
  log_warning("{}: {} has no refs/main; the newest snapshot {} is taken", name.repository, repository.string(), commit);
  return commit;
}

std::string commit_of(const fs::path& repository, const ModelName& name) {
  if (is_commit(name.revision)) return name.revision;
  const fs::path ref = repository / "refs" / (name.revision.empty() ? "main" : name.revision);
  if (!fs::is_regular_file(ref)) {
    if (name.revision.empty()) return newest_snapshot(repository, name);
    fail(ErrorCode::kModel, "{}: no revision \"{}\" in {} (revisions there: {}; snapshots: {})", name.repository,
         name.revision, repository.string(), names_in(repository / "refs"), names_in(repository / "snapshots"));
  }
  std::string text = read_file(ref.string(), kMaxRefBytes);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  if (!is_commit(text)) fail(ErrorCode::kModel, "{}: does not hold a commit of 40 hexadecimal digits", ref.string());
  return text;
}

// Files of a snapshot are links to ../../blobs; none may lead out of the repository's folder.
void check_links(const fs::path& snapshot, const fs::path& repository) {
  const fs::path root = fs::canonical(repository);
  const auto inside = [&](const fs::path& path) {
    const fs::path relative = fs::weakly_canonical(path).lexically_relative(root);
    return !relative.empty() && *relative.begin() != "..";
  };
  if (!inside(snapshot)) fail(ErrorCode::kModel, "{}: leads out of {}", snapshot.string(), repository.string());
  for (const fs::path& path : list(snapshot)) {
    if (!inside(path))
      fail(ErrorCode::kModel, "{}: a link to {}, outside {}", path.string(), fs::weakly_canonical(path).string(),
           repository.string());
  }
}

// A file that is absent, or a link to a blob that is not there yet.
std::vector<std::string> missing_from(const fs::path& snapshot) {
  std::vector<std::string> missing = missing_files(snapshot.string(), {"config.json"});
  const std::string index = (snapshot / kSafetensorsIndexName).string();
  bool any_weights = false;
  for (const fs::path& path : list(snapshot)) {
    const std::string name = path.filename().string();
    if (fs::is_symlink(path) && !fs::exists(path) && name != "config.json") missing.push_back(name);
    any_weights |= path.extension() == ".safetensors" || path.extension() == ".bin" || path.extension() == ".pt" ||
                   path.extension() == ".pth";
  }
  if (fs::is_regular_file(index)) {
    for (std::string& shard : missing_files(snapshot.string(), read_safetensors_index(index).shards())) {
      if (std::find(missing.begin(), missing.end(), shard) == missing.end()) missing.push_back(std::move(shard));
    }
  } else if (!any_weights) {
    missing.push_back("model.safetensors");
  }
  return missing;
}

size_t num_incomplete(const fs::path& repository) {
  const std::vector<fs::path> blobs = list(repository / "blobs");
  return static_cast<size_t>(std::count_if(blobs.begin(), blobs.end(),
                                           [](const fs::path& path) { return path.extension() == ".incomplete"; }));
}

}  // namespace

HubCache hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto value = environment(name)) return {.folder = *value, .origin = name};
  }
  if (const auto home = environment("HF_HOME"))
    return {.folder = (fs::path(*home) / "hub").string(), .origin = "HF_HOME"};
  if (const auto cache = environment("XDG_CACHE_HOME"))
    return {.folder = (fs::path(*cache) / "huggingface" / "hub").string(), .origin = "XDG_CACHE_HOME"};
  const fs::path home = environment("HOME").value_or("/");
  return {.folder = (home / ".cache" / "huggingface" / "hub").string(), .origin = "HOME"};
}

std::string resolve_model(std::string_view model, std::string_view revision) {
  if (fs::is_directory(fs::path(model))) {
    if (!revision.empty()) fail(ErrorCode::kUsage, "{}: a folder has no revision \"{}\"", model, revision);
    return std::string(model);
  }
  if (fs::is_regular_file(fs::path(model))) {
    fail(ErrorCode::kModel, "{}: a file, expected a model folder{}", model,
         model.ends_with(".gguf") ? "; `octet convert` makes one of a GGUF file" : "");
  }
  if (model.starts_with('/') || model.starts_with('.') || model.starts_with('~') || model.ends_with('/'))
    fail(ErrorCode::kModel, "{}: no such folder", model);
  const ModelName name = parse_name(model, revision);
  const HubCache cache = hub_cache();
  std::string folder_name = "models--" + name.repository;
  if (const size_t slash = folder_name.find('/'); slash != std::string::npos) folder_name.replace(slash, 1, "--");
  const fs::path repository = fs::path(cache.folder) / folder_name;
  if (!fs::is_directory(repository)) {
    fail(ErrorCode::kModel,
         "{}: no such folder here ({}), and no {} in the Hugging Face cache {} (from {}); octet downloads nothing: "
         "fetch the model first",
         model, fs::current_path().string(), folder_name, cache.folder, cache.origin);
  }
  const std::string commit = commit_of(repository, name);
  const fs::path snapshot = repository / "snapshots" / commit;
  if (!fs::is_directory(snapshot)) {
    fail(ErrorCode::kModel, "{}: no snapshot {} in {} (snapshots there: {})", model, commit, repository.string(),
         names_in(repository / "snapshots"));
  }
  check_links(snapshot, repository);
  const std::vector<std::string> missing = missing_from(snapshot);
  if (!missing.empty()) {
    fail(ErrorCode::kModel, "{}: {} is not downloaded whole ({} unfinished files); missing: {}", model,
         snapshot.string(), num_incomplete(repository), fmt::join(missing, ", "));
  }
  return snapshot.string();
}

}  // namespace octet
