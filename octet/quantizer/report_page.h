// The report of a run as files: report.json, and report.html, one page that needs nothing else.
#pragma once

#include <string>

#include "octet/quantizer/options.h"

namespace octet {

// What depends on when and how the run was made (its time, whether it was resumed) is left out: the same input gives
// the same files.
std::string report_json(const QuantizeReport& report);
std::string report_html(const QuantizeReport& report);

}  // namespace octet
