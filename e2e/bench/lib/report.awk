# Makes the table and the JSON lines from figures.tsv and the samples (figure, program, round, value).
# A figure is the median of its rounds. A ratio is the median of the ratios within each round, since the machine may be slower in one round than in
# another. Where the rounds of a program cannot be paired with ours, it is the ratio of the medians.

BEGIN { FS = "\t" }
FNR == NR {
  if ($0 !~ /^#/ && NF == 8) { key[++figures] = $1; name[$1] = $2; unit[$1] = $3; better[$1] = $4; decimals[$1] = $5; against[$1] = $6; reach[$1] = $7; next_reach[$1] = $8 }
  next
}
{
  if (!(($1, $2) in count)) programs[$1] = programs[$1] $2 "\t"
  sample[$1, $2, ++count[$1, $2]] = $4
  of_round[$1, $2, $3] = $4
  round[$1, $2, count[$1, $2]] = $3
}
END {
  printf "" >json
  printf "\n%-56s %-4s %-22s  %-30s  %-24s  %s\n", "figure", "unit", "ours (min..max)", "peer (min..max)", "ours / peer (min..max)", "to reach"
  for (figure = 1; figure <= figures; figure++) {
    k = key[figure]
    if (!((k, "ours") in count)) continue
    shown = 0
    if (against[k] == "value") line(k, "reach")
    others = split(programs[k], other, "\t") - 1
    for (i = 1; i <= others; i++) if (other[i] != "ours") line(k, other[i])
  }
  print ""
}

function line(k, peer,    n, i, ratios, ours, theirs, ratio, r, note) {
  ours = median_of(k, "ours"); ours_min = low; ours_max = high
  if (peer == "reach") {
    theirs = reach[k]; peer_min = theirs; peer_max = theirs
    for (i = 1; i <= count[k, "ours"]; i++) ratios[++n] = sample[k, "ours", i] / theirs
  } else {
    theirs = median_of(k, peer); peer_min = low; peer_max = high
    for (i = 1; i <= count[k, "ours"]; i++) {
      r = round[k, "ours", i]
      if ((k, peer, r) in of_round && of_round[k, peer, r] > 0) ratios[++n] = sample[k, "ours", i] / of_round[k, peer, r]
    }
  }
  if (n == count[k, "ours"]) ratio = median(ratios, n)
  else { ratio = theirs > 0 ? ours / theirs : 0; low = ratio; high = ratio }
  ratio_min = low; ratio_max = high
  note = verdict(k, peer, ratio, ours)
  if (shown++) printf "%-56s %-4s %-22s", "", "", ""
  else printf "%-56s %-4s %-22s", name[k], unit[k], spread(ours, ours_min, ours_max, decimals[k])
  printf "  %-30s  %-24s  %s\n", peer == "reach" ? "-" : peer " " spread(theirs, peer_min, peer_max, decimals[k]), spread(ratio, ratio_min, ratio_max, 2), note
  printf "{\"name\":\"%s\",\"unit\":\"%s\",\"ours\":%.4f,\"peer\":\"%s\",\"peer_value\":%.4f,\"ratio\":%.4f,\"better\":\"%s\"", name[k], unit[k], ours, peer, theirs, ratio, better[k] >json
  printf ",\"ours_min\":%.4f,\"ours_max\":%.4f,\"peer_min\":%.4f,\"peer_max\":%.4f,\"ratio_min\":%.4f,\"ratio_max\":%.4f,\"rounds\":%d", ours_min, ours_max, peer_min, peer_max, ratio_min, ratio_max, count[k, "ours"] >json
  if (note != "") printf ",\"reach_ratio\":%s,\"reached\":%s", peer == "reach" ? 1 : reach_of(k, peer), is_reached ? "true" : "false" >json
  print "}" >json
}

# What was to be reached beside what was: for the peer that the figure is to be held against.
function verdict(k, peer, ratio, ours,    text, limit, sign) {
  if (peer == "reach") {
    is_reached = ours <= reach[k] + 0
    return "<= " reach[k] " " unit[k] ": " (is_reached ? "reached" : "NOT reached")
  }
  if (index("," against[k] ",", "," peer ",") == 0) return ""
  limit = reach_of(k, peer)
  sign = better[k] == "higher" ? ">=" : "<="
  is_reached = sign == ">=" ? ratio >= limit + 0 : ratio <= limit + 0
  text = sign " " limit ": " (is_reached ? "reached" : "NOT reached")
  if (next_reach[k] != "-" && index(against[k], peer) == 1) text = text ", then " next_reach[k] ": " (ratio <= next_reach[k] + 0 ? "reached" : "not yet")
  return text
}

# Of several peers each may have a reach of its own.
function reach_of(k, peer,    peers, reaches, n, i) {
  n = split(against[k], peers, ",")
  if (split(reach[k], reaches, ",") < n) return reach[k]
  for (i = 1; i <= n; i++) if (peers[i] == peer) return reaches[i]
}

function spread(middle, least, most, places) {
  if (least == most) return sprintf("%." places "f", middle)
  return sprintf("%." places "f (%." places "f..%." places "f)", middle, least, most)
}

function median_of(k, program,    values, i) {
  for (i = 1; i <= count[k, program]; i++) values[i] = sample[k, program, i]
  return median(values, count[k, program])
}

# Sets low and high too.
function median(values, n,    i, j, value) {
  for (i = 2; i <= n; i++) {
    value = values[i] + 0
    for (j = i - 1; j >= 1 && values[j] + 0 > value; j--) values[j + 1] = values[j]
    values[j + 1] = value
  }
  low = values[1] + 0
  high = values[n] + 0
  return n % 2 ? values[(n + 1) / 2] + 0 : (values[n / 2] + values[n / 2 + 1]) / 2
}
