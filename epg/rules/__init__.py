"""Update rules that can be differentiated: how agents' parameters move by what they lived and by η,
what tunes the rule itself."""
