// Model names to folders, as huggingface_hub lays its cache out. No network, ever.
#pragma once

#include <string>
#include <string_view>

namespace octet {

// An existing folder is taken as it is; "org/name" or "org/name@revision" is looked up in the Hugging Face cache:
// HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
// Throws Error{kModel} that says where it looked, or which files of a half-downloaded snapshot are missing.
std::string resolve_model(std::string_view model, std::string_view revision = "");

}  // namespace octet
