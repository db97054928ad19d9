{% set panel %}{% include "panel.html" %}{% endset %}
window.atlasFeature?.({{ id | tojson }}, {{ panel | tojson }}, {{ active | tojson }});
