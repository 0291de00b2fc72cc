-- Whether the check can be run, which is what was deployed. What its runs find is the hub's to tell: a failing check means that
-- something else is broken.
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the agent has not looked at it yet" }
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    if condition.status == "True" then
      return { status = "Healthy", message = "last run: " .. (status.status or "none yet") }
    end
    if condition.reason == "Stopped" or condition.reason == "Scheduled" then
      return { status = "Suspended", message = condition.message }
    end
    return { status = "Degraded", message = condition.reason .. ": " .. condition.message }
  end
end
return { status = "Progressing", message = "the agent has not looked at it yet" }
