{% set panel %}{% include "panel.html" %}{% endset %}
window.atlasFeature?.({{ id }}, {{ panel | tojson }}, {{ active }});
