// StepRunner: runs one step at a time somewhere else, while the caller does other things.
#pragma once

#include "octet/engine/step_plan.h"

namespace octet {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // `plan` must live until wait() returns. One step at a time.
  virtual void start(const StepPlan& plan) = 0;
  // The result of the step that was started. Throws when a rank failed: nothing can run after that.
  virtual StepResult wait() = 0;
};

}  // namespace octet
