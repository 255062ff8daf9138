-- Posts the lines of a file in turn, from a given one on, and tells what came of it as one line of JSON.
-- wrk reads every answer to its end, streams as well: it parses chunked bodies.
local requests, at, count = {}, 0, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer none" }
  for body in io.lines(args[1]) do
    count = count + 1
    requests[count] = wrk.format("POST", nil, headers, body)
  end
  at = tonumber(args[2])
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
