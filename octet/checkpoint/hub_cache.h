// Model names to folders, as huggingface_hub lays its cache out. No network, ever.
#pragma once

#include <string>
#include <string_view>

namespace octet {

// An existing folder is taken as it is; "org/name" or "org/name@revision" is looked up in the Hugging Face cache:
// models--org--name/refs/<revision> names a commit, snapshots/<commit> is the folder. `revision`: a branch, a tag or a
// commit of 40 hexadecimal digits; "" is "main", or the newest snapshot (with a warning) where there is no such
// reference. Throws Error{kModel} that says where it looked, which files of a half-downloaded snapshot are missing, or
// which link leaves the model's part of the cache; Error{kUsage} for a name that cannot be one.
std::string resolve_model(std::string_view model, std::string_view revision = "");

// The cache: the first that is set of HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, $HF_HOME/hub,
// $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub. `origin`: which one, for messages.
struct HubCache {
  std::string folder;
  std::string origin;
};
HubCache hub_cache();

}  // namespace octet
