// What `octet bench latency --profile` shows of a step.
#pragma once

#include <string>

#include "octet/base/json.h"
#include "octet/engine/step_profile.h"

namespace octet {

// itl_s: the time per token as it was measured, what lies between steps included.
std::string profile_table(const StepProfile& profile, double itl_s);
Json profile_json(const StepProfile& profile);

}  // namespace octet
