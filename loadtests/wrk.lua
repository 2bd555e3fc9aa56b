-- Sends the requests of a file, of which each line is a body, in random order:
--
--   wrk -t2 -c64 -d10s -s wrk.lua http://127.0.0.1:8080/graphql -- bodies.ndjson TOKEN
--
-- @UNIQUE@ in a body is another word in each request.
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  local requests, templates, sent = {}, {}, 0
  local run = string.format("%x-%d", os.time(), number)
  math.randomseed(os.time() * 100 + number)
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  wrk.headers["accept"] = "application/graphql-response+json"
  wrk.headers["authorization"] = "Bearer " .. args[2]
  for line in io.lines(args[1]) do
    if line:find("@UNIQUE@", 1, true) then
      table.insert(templates, line)
    else
      table.insert(requests, wrk.format(nil, nil, nil, line))
    end
  end
  if #templates > 0 then
    request = function()
      sent = sent + 1
      local unique = run .. "-" .. sent
      return wrk.format(nil, nil, nil, (templates[math.random(#templates)]:gsub("@UNIQUE@", unique)))
    end
  else
    request = function() return requests[math.random(#requests)] end
  end
end
