// The files of a quantised checkpoint besides its weights: what the source has, and its config.json with what was done.
#pragma once

#include <string>

#include "octet/base/json.h"
#include "octet/quant/dialect.h"

namespace octet {

// config.json of the folder. Throws Error{kModel} when it is missing, or says that the model is quantised.
Json read_plain_config(const std::string& folder);

// Copies tokenizer, chat template, generation_config.json, licences and the model's own code.
void copy_model_files(const std::string& from, const std::string& to);

}  // namespace octet
