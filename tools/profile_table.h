// What `octet bench latency --profile` shows of a step.
#pragma once

#include <string>

#include "octet/base/json.h"
#include "octet/engine/step_profile.h"

namespace octet {

// measured_s: the time of such a step as it was measured, what lies between steps included.
std::string profile_table(const StepProfile& profile, double measured_s);
Json profile_json(const StepProfile& profile);

}  // namespace octet
