-- Degraded where the hub or a cluster does not take it, Healthy once every cluster that it selects has it.
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the hub has not looked at it yet" }
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local accepted, ready = found.Accepted, found.Ready
if accepted ~= nil and accepted.status == "False" then
  return { status = "Degraded", message = accepted.reason .. ": " .. accepted.message }
end
if ready == nil then
  return { status = "Progressing", message = "the hub has not looked at it yet" }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.reason == "Refused" then
  return { status = "Degraded", message = ready.message }
end
return { status = "Progressing", message = ready.message }
