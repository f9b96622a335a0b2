"""Colors of raised and lowered, as in the paper: blue and orange, told apart by every kind of color vision.

The hues are Okabe and Ito's blue and vermillion. No color carries meaning alone: an arrow always stands beside it.
The report's style sheet holds the same hues, once for light and once for dark pages.
"""

RAISED = "#0072B2"
RAISED_PALE = "#A9D3EC"
LOWERED = "#D55E00"
LOWERED_PALE = "#F6C79F"
NEUTRAL = "#5F6368"
INK = "#1F2328"
FAINT = "#D0D4D9"
