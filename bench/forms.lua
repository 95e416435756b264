-- What wrk sends: one form of send, or all of them in a random mix. Run as
-- wrk ... -s forms.lua URL -- FORM PATH KEY PEOPLE; each send names another person and says
-- something of its own.

local forms, order, path, people = {}, {}, nil, nil
local headers = { ["Content-Type"] = "application/json" }
local asked, number, seed = nil, 0, 0

local function mail(n) return '"user' .. (1 + n % people) .. '@example.com"' end

local function words(n)
  return '"title":"Order ' .. n .. '","body":"Hello user' .. n .. ', your order ' .. n .. ' is on its way"'
end

local function send(notification, recipients, options)
  return '{"notification":{' .. notification .. '},"recipients":' .. recipients .. (options or "") .. "}"
end

local function form(name, make)
  forms[name] = make
  order[#order + 1] = name
end

form("mail", function(n) return send(words(n), mail(n)) end)
form("token", function(n) return send(words(n), string.format('"%064x"', seed * 10000000 + n)) end)
form("list of five", function(n)
  local named = {}
  for place = 0, 4 do named[place + 1] = mail(5 * n + place) end
  return send(words(n), "[" .. table.concat(named, ",") .. "]")
end)
form("badge, url, data", function(n)
  return send(words(n) .. ',"badge":' .. n % 100 .. ',"url":"https://example.com/orders/' .. n
    .. '","user_info":{"order":' .. n .. ',"lines":[{"article":"A-' .. n .. '","count":2}]}', mail(n))
end)
form("template", function(n)
  return send('"template":"order","variables":{"name":"user' .. n .. '","order":' .. n .. '}', mail(n))
end)
form("languages", function(n)
  return send(words(n) .. ',"languages":{"fr":{"title":"Commande ' .. n .. '","body":"Votre commande '
    .. n .. ' est en route"},"de":{"title":"Bestellung ' .. n .. '"}}', mail(n))
end)
form("options", function(n)
  return send(words(n) .. ',"collapse_id":"order-' .. n .. '","priority":5,"ttl":3600,"thread_id":"orders"',
    mail(n), ',"urgency":"urgent","idempotency_key":"' .. seed .. "-" .. n .. '"')
end)

function init(args)
  asked, path, people = args[1], args[2], tonumber(args[4])
  headers["Authorization"] = "Bearer " .. args[3]
  seed = os.time() % 1000000
  math.randomseed(seed)
end

function request()
  number = number + 1
  local name = asked == "mix" and order[math.random(#order)] or asked
  return wrk.format("POST", path, headers, forms[name](number))
end

local refused = 0
function response(status, _, body)
  if status ~= 202 then
    refused = refused + 1
    if refused == 1 then io.stderr:write(status .. " " .. body .. "\n") end
  end
end
